// Records how many drafts would stand in a round that begins at each token of a greedy text: the
// traces that tests/spec/data/acceptance.json holds. Greedy acceptance does not depend on K, so a
// trace tells what any sequence of K would have given.
//
// One character for each token: '.' where nothing could be drafted, else the number of drafts that
// stood, in base 16 (at most 15).

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backend/round_view.h"
#include "engine/pair_loader.h"
#include "noisy_draft.h"
#include "spec/ngram_drafter.h"
#include "tandem/tandem.h"

namespace {

using nlohmann::ordered_json;

struct Options {
  std::string config = "configs/demo.json";
  std::string dataset;
  int limit = 10;
  int max_tokens = 200;
  std::vector<double> noises = {0};
  int threads = 0;
  bool ngram = false;
};

struct Text {
  std::vector<int32_t> prompt;
  std::vector<int32_t> tokens;
};

std::vector<Text> plain_texts(tandem::LoadedPair& pair, const Options& options) {
  std::ifstream file(options.dataset);
  if (!file) throw tandem::UsageError(options.dataset + ": cannot be read");
  std::vector<Text> texts;
  std::string line;
  while (static_cast<int>(texts.size()) < options.limit && std::getline(file, line)) {
    Text& text = texts.emplace_back();
    const auto object = nlohmann::json::parse(line);
    text.prompt = pair.tokenizer->encode(object.at("prompt").get<std::string>(), /*special=*/true);
    pair.decoder->start(text.prompt, {});
    while (static_cast<int>(text.tokens.size()) < options.max_tokens) {
      text.tokens.push_back(pair.decoder->round(1).tokens.front());
    }
  }
  return texts;
}

constexpr int kMost = tandem::kMaxSpeculativeTokens;

char digit(int stood) { return "0123456789abcdef"[stood]; }

/// A round of the most drafts tells of each token that it covers whether the draft knew it; of the
/// one behind a full acceptance it tells nothing, so the next round begins there.
std::string trace_of_model(tandem::SpeculativeDecoder& decoder, const Text& text) {
  tandem::DecodeSettings settings;
  settings.num_speculative_tokens = kMost;
  std::vector<bool> known;
  bool begin = true;
  while (known.size() < text.tokens.size()) {
    if (begin) {
      std::vector<int32_t> prefix = text.prompt;
      prefix.insert(prefix.end(), text.tokens.begin(),
                    text.tokens.begin() + static_cast<ptrdiff_t>(known.size()));
      decoder.start(prefix, settings);
    }
    const int accepted = decoder.round(kMost + 1).num_accepted;
    begin = accepted == kMost;
    known.insert(known.end(), static_cast<size_t>(accepted), true);
    if (!begin) known.push_back(false);
  }
  std::string trace(text.tokens.size(), '0');
  int stood = 0;
  for (size_t i = known.size(); i-- > 0;) {
    stood = known[i] ? std::min(stood + 1, kMost) : 0;
    if (i < trace.size()) trace[i] = digit(stood);
  }
  return trace;
}

/// What is looked up does not depend on a model: only the text counts.
std::string trace_of_ngrams(tandem::Backend& backend, const tandem::Config& config,
                            const Text& text) {
  const auto& speculation = config.speculation;
  const auto stream = backend.make_stream();
  tandem::NgramDrafter drafter(backend, speculation.prompt_lookup_min,
                               speculation.prompt_lookup_max,
                               static_cast<int>(text.prompt.size() + text.tokens.size()));
  std::vector<int32_t> drafts(kMost);
  tandem::RoundView round;
  round.drafts = drafts.data();
  drafter.start(round, text.prompt, {}, *stream);
  std::string trace;
  for (size_t i = 0; i < text.tokens.size(); ++i) {
    if (drafter.capacity(0, kMost) == 0) {
      trace += '.';
    } else {
      drafter.draft(round, {0, 0, kMost, 0}, *stream);
      stream->synchronize();
      int stood = 0;
      while (stood < kMost && i + static_cast<size_t>(stood) < text.tokens.size() &&
             drafts[static_cast<size_t>(stood)] == text.tokens[i + static_cast<size_t>(stood)]) {
        ++stood;
      }
      trace += digit(stood);
    }
    drafter.observe({&text.tokens[i], 1});
  }
  return trace;
}

ordered_json traces(const tandem::Config& config, const Options& options) {
  tandem::LoadedPair pair = tandem::load_pair(config, {});
  auto list = ordered_json::array();
  for (const Text& text : plain_texts(pair, options)) {
    list.push_back(config.speculation.method == "ngram"
                       ? trace_of_ngrams(pair.main->backend(), config, text)
                       : trace_of_model(*pair.decoder, text));
  }
  return list;
}

int run(const Options& options) {
  tandem::Config config = tandem::Config::from_file(options.config);
  config.speculation.max_speculative_tokens = kMost;
  config.cpu_threads = options.threads;
  ordered_json result = ordered_json::object();
  const auto original = config.draft;
  const auto folder = std::filesystem::temp_directory_path() / "tandem-noisy-draft";
  for (const double noise : options.noises) {
    tandem::bench::write_noisy_model(original->model, folder, noise, /*seed=*/1);
    config.draft->model = folder;
    result["noise " + nlohmann::json(noise).dump()] = traces(config, options);
  }
  std::filesystem::remove_all(folder);
  if (options.ngram) {
    config.speculation.method = "ngram";
    result["ngram"] = traces(config, options);
  }
  std::cout << result.dump(1) << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Records acceptance along greedy texts, for the simulation of draft lengths"};
  app.add_option("--config", options.config, "Configuration of the pair")->capture_default_str();
  app.add_option("--dataset", options.dataset, "JSONL file whose lines hold a \"prompt\"")
      ->required();
  app.add_option("--limit", options.limit, "Prompts to use")->capture_default_str();
  app.add_option("--max-tokens", options.max_tokens, "Tokens a text")->capture_default_str();
  app.add_option("--noise", options.noises, "Drafts: noise in the weights, 0 to 1")->delimiter(',');
  app.add_flag("--ngram", options.ngram, "Record n-gram look-up, too");
  app.add_option("--threads", options.threads, "CPU threads; 0: all cores")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::cerr << "record_acceptance: error: " << error.what() << "\n";
    return 1;
  }
}
