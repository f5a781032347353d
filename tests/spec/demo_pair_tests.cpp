// The promises of speculative decoding on the bundled pair of real models: texts that do not depend
// on the drafter, and token counts that follow the main model's law.

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>

#include "model/model_loader.h"
#include "spec/model_drafter.h"
#include "spec/ngram_drafter.h"
#include "spec/speculative_decoder.h"
#include "support/catch.h"
#include "support/chi_square.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Kind = DecodeRule::Kind;
using Tokens = std::vector<int32_t>;

const std::filesystem::path kSource = TANDEM_SOURCE_DIR;
constexpr int kMaxDrafts = 8;
constexpr int kMaxPositions = 1024;
constexpr double kSignificance = 1e-6;

#ifdef TANDEM_SANITIZED
constexpr int kGreedyTokens = 12, kCoupledTokens = 6;
constexpr size_t kPrompts = 2, kPromptTokens = 40;  // of what the file holds
constexpr size_t kSampledPrompt = 1;
constexpr uint64_t kSamples = 25;
constexpr int64_t kLeastTokens = 200;
#else
constexpr int kGreedyTokens = 400, kCoupledTokens = 200;
constexpr size_t kPrompts = SIZE_MAX, kPromptTokens = SIZE_MAX;
constexpr size_t kSampledPrompt = 2;
constexpr uint64_t kSamples = 2100;
constexpr int64_t kLeastTokens = 20000;
#endif

enum class DrafterKind { kNone, kModel, kNgram };

class Pair {
 public:
  explicit Pair(DrafterKind kind)
      : backend_(make_backend(DeviceSpec{}, 0)), main_(load("main")), draft_(load("draft")) {
    std::unique_ptr<Drafter> drafter;
    if (kind == DrafterKind::kModel) {
      drafter =
          std::make_unique<ModelDrafter>(*draft_, main_->vocab_size(), std::span<const uint8_t>{});
    } else if (kind == DrafterKind::kNgram) {
      constexpr int kLookupMin = 2, kLookupMax = 4;
      drafter = std::make_unique<NgramDrafter>(*backend_, kLookupMin, kLookupMax, kMaxPositions);
    }
    decoder_.emplace(*main_, std::move(drafter), kMaxDrafts);
  }

  /// The text behind a prompt; the prompt is run once for texts that follow each other.
  Tokens generate(const Tokens& prompt, const DecodeSettings& settings, int tokens) {
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

  double acceptance_rate() const {
    return static_cast<double>(accepted_) / static_cast<double>(std::max<int64_t>(drafted_, 1));
  }
  int vocab_size() const { return main_->vocab_size(); }

 private:
  std::unique_ptr<Transformer> load(const char* name) {
    LoadOptions options;
    options.max_positions = kMaxPositions;
    options.role = name;
    return load_model(kSource / "models/demo" / name, *backend_, options);
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Transformer> main_, draft_;
  std::optional<SpeculativeDecoder> decoder_;
  Tokens prompt_;
  int64_t drafted_ = 0, accepted_ = 0;
};

std::vector<Tokens> prompts() {
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

DecodeSettings settings_of(Kind kind, int k, float temperature, uint64_t seed = 0) {
  DecodeSettings settings;
  settings.rule.kind = kind;
  settings.rule.transform.temperature = temperature;
  settings.num_speculative_tokens = k;
  settings.seed = seed;
  return settings;
}

/// Texts of every prompt with the draft model at every K and with n-gram, against plain decoding.
/// Returns how many tokens were compared.
int64_t check_same_texts(Kind kind, float temperature, int tokens) {
  Pair plain(DrafterKind::kNone), model(DrafterKind::kModel), ngram(DrafterKind::kNgram);
  int64_t compared = 0;
  uint64_t seed = 1;
  for (const Tokens& prompt : prompts()) {
    ++seed;
    const Tokens expected = plain.generate(prompt, settings_of(kind, 0, temperature, seed), tokens);
    for (int k = 1; k <= kMaxDrafts; ++k) {
      CAPTURE(k, temperature, prompt.size());
      REQUIRE(model.generate(prompt, settings_of(kind, k, temperature, seed), tokens) == expected);
      compared += tokens;
    }
    REQUIRE(ngram.generate(prompt, settings_of(kind, kMaxDrafts, temperature, seed), tokens) ==
            expected);
    compared += tokens;
  }
  CHECK(model.acceptance_rate() > 0.1);
  return compared;
}

/// counts[position][token] over texts with seeds first_seed, first_seed + 1, ….
using Counts = std::vector<std::vector<int64_t>>;
Counts count_tokens(Pair& pair, const Tokens& prompt, DecodeSettings settings, int tokens,
                    uint64_t first_seed) {
  Counts counts(static_cast<size_t>(tokens),
                std::vector<int64_t>(static_cast<size_t>(pair.vocab_size())));
  for (uint64_t i = 0; i < kSamples; ++i) {
    settings.seed = first_seed + i;
    const Tokens text = pair.generate(prompt, settings, tokens);
    for (size_t t = 0; t < text.size(); ++t) ++counts[t][static_cast<size_t>(text[t])];
  }
  return counts;
}

/// Likely tokens have cells of their own, rare ones share some.
ChiSquare compare(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  std::vector<size_t> order(a.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t x, size_t y) { return a[x] + b[x] > a[y] + b[y]; });
  std::vector<int64_t> first, second;
  for (const size_t x : order) {
    first.push_back(a[x]);
    second.push_back(b[x]);
  }
  return same_law(first, second);
}

}  // namespace

TEST_CASE("greedy texts of the pair are the main model's, for every K and n-gram", "[demo_pair]") {
  CHECK(check_same_texts(Kind::kGreedy, 0, kGreedyTokens) >= kLeastTokens);
}

TEST_CASE("coupled texts of the pair are the main model's, whatever the drafter", "[demo_pair]") {
  CHECK(check_same_texts(Kind::kCoupled, 0.8f, kCoupledTokens) +
            check_same_texts(Kind::kCoupled, 1.0f, kCoupledTokens) >=
        kLeastTokens);
}

TEST_CASE("sampled texts of the pair follow the main model's law", "[demo_pair]") {
  constexpr int kTokens = 8, kDrafts = 3;
  constexpr float kTemperature = 1;
  // Seeds that no two of the samples share.
  constexpr uint64_t kPlainSeeds = 0, kRejectionSeeds = 1u << 20, kBlockSeeds = 2u << 20;
  constexpr uint64_t kCoolSeeds = 3u << 20;
  const Tokens prompt = prompts()[kSampledPrompt];
  Pair plain(DrafterKind::kNone), model(DrafterKind::kModel);
  const Counts expected =
      count_tokens(plain, prompt, settings_of(Kind::kBlock, 0, kTemperature), kTokens, kPlainSeeds);
  for (const auto& [kind, seeds] :
       {std::pair{Kind::kRejection, kRejectionSeeds}, std::pair{Kind::kBlock, kBlockSeeds}}) {
    const Counts counts =
        count_tokens(model, prompt, settings_of(kind, kDrafts, kTemperature), kTokens, seeds);
    for (size_t t = 0; t < kTokens; ++t) {
      const ChiSquare test = compare(expected[t], counts[t]);
      CAPTURE(static_cast<int>(kind), t, test.statistic, test.dof);
      CHECK(test.p_value > kSignificance);
    }
  }
  CHECK(model.acceptance_rate() > 0.1);

  // The same comparison sees a law that is not the same: a cooler one.
  constexpr float kCooler = 0.8f;
  const Counts cool =
      count_tokens(plain, prompt, settings_of(Kind::kBlock, 0, kCooler), kTokens, kCoolSeeds);
  double least = 1;
  for (size_t t = 0; t < kTokens; ++t) {
    least = std::min(least, compare(expected[t], cool[t]).p_value);
  }
#ifndef TANDEM_SANITIZED  // with so few draws it may not
  CHECK(least < kSignificance);
#endif
}
