#include "demo_pair.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/model_loader.h"
#include "spec/model_drafter.h"
#include "spec/ngram_drafter.h"
#include "support/catch.h"

namespace tandem::test {
namespace {

const std::filesystem::path kSource = TANDEM_SOURCE_DIR;
constexpr int kMaxPositions = 2048;
#ifdef TANDEM_SANITIZED
constexpr size_t kPrompts = 2, kPromptTokens = 40;  // of what the file holds
#else
constexpr size_t kPrompts = SIZE_MAX, kPromptTokens = SIZE_MAX;
#endif

}  // namespace

DemoPair::DemoPair(PairDrafter kind, const DeviceSpec& device)
    : backend_(make_backend(device, 0)), main_(load("main")), draft_(load("draft")) {
  std::unique_ptr<Drafter> drafter;
  if (kind == PairDrafter::kModel) {
    drafter =
        std::make_unique<ModelDrafter>(*draft_, main_->vocab_size(), std::span<const uint8_t>{});
  } else if (kind == PairDrafter::kNgram) {
    constexpr int kLookupMin = 2, kLookupMax = 4;
    drafter = std::make_unique<NgramDrafter>(*backend_, kLookupMin, kLookupMax, kMaxPositions);
  }
  decoder_.emplace(*main_, std::move(drafter), kMaxDrafts);
}

Tokens DemoPair::generate(const Tokens& prompt, const DecodeSettings& settings, int tokens) {
  if (prompt == prompt_) {
    decoder_->restart(settings);
  } else {
    decoder_->start(prompt, settings);
    prompt_ = prompt;
  }
  Tokens text;
  while (static_cast<int>(text.size()) < tokens) {
    const RoundResult& result = decoder_->round(tokens - static_cast<int>(text.size()));
    text.insert(text.end(), result.tokens.begin(), result.tokens.end());
    drafted_ += result.num_drafts;
    accepted_ += result.num_accepted;
  }
  return text;
}

double DemoPair::acceptance_rate() const {
  return static_cast<double>(accepted_) / static_cast<double>(std::max<int64_t>(drafted_, 1));
}

std::unique_ptr<Transformer> DemoPair::load(const char* name) {
  LoadOptions options;
  options.max_positions = kMaxPositions;
  options.role = name;
  return load_model(kSource / "models/demo" / name, *backend_, options);
}

std::vector<Tokens> demo_prompts() {
  std::ifstream file(kSource / "tests/data/demo_reference.json");
  const nlohmann::json reference = nlohmann::json::parse(file);
  std::vector<Tokens> all;
  for (const auto& entry : reference.at("main")) {
    all.push_back(entry.at("ids").get<Tokens>());
    all.back().resize(std::min(all.back().size(), kPromptTokens));
    if (all.size() == kPrompts) break;
  }
  return all;
}

DecodeSettings demo_settings(DecodeRule::Kind kind, int k, float temperature, uint64_t seed) {
  DecodeSettings settings;
  settings.rule.kind = kind;
  settings.rule.transform.temperature = temperature;
  settings.num_speculative_tokens = k;
  settings.seed = seed;
  return settings;
}

int64_t check_same_texts(const DeviceSpec& device, DecodeRule::Kind kind, float temperature,
                         int tokens, int most_drafts) {
  DemoPair plain(PairDrafter::kNone, device), model(PairDrafter::kModel, device);
  DemoPair ngram(PairDrafter::kNgram, device);
  int64_t compared = 0;
  uint64_t seed = 1;
  for (const Tokens& prompt : demo_prompts()) {
    ++seed;
    const Tokens expected =
        plain.generate(prompt, demo_settings(kind, 0, temperature, seed), tokens);
    for (int k = 1; k <= most_drafts; ++k) {
      CAPTURE(k, temperature, prompt.size());
      REQUIRE(model.generate(prompt, demo_settings(kind, k, temperature, seed), tokens) ==
              expected);
      compared += tokens;
    }
    REQUIRE(ngram.generate(prompt, demo_settings(kind, most_drafts, temperature, seed), tokens) ==
            expected);
    compared += tokens;
  }
  CHECK(model.acceptance_rate() > 0.1);
  return compared;
}

}  // namespace tandem::test
