// Plain against speculative decoding of a pair, interleaved so that both see the same machine.
//
// The main model is loaded once; each precision of the draft takes its turn. Within one, every
// repetition decodes every prompt plainly and with each K. Forward passes are timed alone as well,
// by width, so that what a round costs can be told from what its passes cost: v(K) is a pass of
// K + 1 rows over one of one row, c a draft step over the same, b the same ratio in bytes.

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "backend/cuda_devices.h"
#include "decode_measure.h"
#include "decode_report.h"
#include "engine/pair_loader.h"
#include "engine/pair_request.h"
#include "spec/model_drafter.h"
#include "spec/remote_drafter.h"
#include "tandem/tandem.h"

namespace {

using namespace tandem;
using namespace tandem::bench;

constexpr int kWidestPass = 16;
constexpr int kOverheadDrafts = 4;  // the K at which a round's own cost is looked at
constexpr int kWarmUpTokens = 16;
constexpr float kTemperature = 0.8f, kTopP = 0.95f;

struct Options {
  std::string config = "configs/demo.json";
  std::string dataset;
  std::string device, split, draft_device, quantization, expand, draft_expand;
  std::vector<std::string> draft_quantizations;
  std::vector<int> draft_lengths = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  int limit = 10;
  int max_tokens = 200;
  int repeats = 1;
  int context = 256;
  int threads = 0;
  bool json = false;
  std::string output;
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::vector<std::string> read_prompts(const std::string& path, int limit) {
  std::ifstream file(path);
  if (!file) {
    throw UsageError(path + ": cannot be read; give a JSONL file whose lines hold a \"prompt\"");
  }
  std::vector<std::string> prompts;
  std::string line;
  for (int number = 1; static_cast<int>(prompts.size()) < limit && std::getline(file, line);
       ++number) {
    const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object() || !object.contains("prompt") || !object["prompt"].is_string()) {
      throw UsageError(path + ":" + std::to_string(number) +
                       ": no JSON object with a \"prompt\" string");
    }
    prompts.push_back(object["prompt"].get<std::string>());
  }
  if (prompts.empty()) throw UsageError(path + ": holds no prompt");
  return prompts;
}

Config read_config(const Options& options) {
  Config config = Config::from_file(options.config);
  config.cpu_threads = options.threads;
  config.speculation.max_speculative_tokens = kMaxSpeculativeTokens;
  if (!options.device.empty()) config.main.devices = options.device;
  if (!options.quantization.empty()) config.main.quantization = options.quantization;
  if (!options.expand.empty()) config.main.expand = options.expand;
  if (!options.split.empty()) config.main.split = options.split;
  if (config.draft && !options.draft_device.empty()) config.draft->device = options.draft_device;
  if (config.draft && !options.draft_expand.empty()) config.draft->expand = options.draft_expand;
  if (config.draft && !options.draft_quantizations.empty()) {
    config.draft->quantization = options.draft_quantizations.front();
  }
  return config;
}

class DecodeBench {
 public:
  explicit DecodeBench(const Options& options) : options_(options), config_(read_config(options)) {
    const std::vector<std::string> texts = read_prompts(options.dataset, options.limit);
    const auto begin = std::chrono::steady_clock::now();
    pair_ = load_pair(config_, {});
    report_.load_seconds = seconds_since(begin);
    for (const std::string& text : texts) {
      prompts_.push_back(pair_.tokenizer->encode(text, /*special=*/true));
    }
  }

  DecodeReport run() {
    describe();
    report_.main_pass_seconds = time_passes(*pair_.main, kWidestPass, options_.context);
    if (pair_.draft == nullptr) {
      for (const auto& prompt : prompts_) {
        decode(*pair_.decoder, prompt, greedy(0), kWarmUpTokens);
        report_.plain.add(decode(*pair_.decoder, prompt, greedy(0), options_.max_tokens));
      }
      return report_;
    }
    std::vector<std::string> precisions = options_.draft_quantizations;
    if (precisions.empty()) precisions.push_back(config_.draft->quantization);
    for (size_t i = 0; i < precisions.size(); ++i) measure_draft(precisions[i], i == 0);
    return report_;
  }

 private:
  static DecodeSettings greedy(int draft_length) {
    DecodeSettings settings;
    settings.num_speculative_tokens = draft_length;
    return settings;
  }
  static DecodeSettings sampled(int draft_length) {
    DecodeSettings settings = greedy(draft_length);
    settings.rule.kind = DecodeRule::Kind::kBlock;
    settings.rule.transform.temperature = kTemperature;
    settings.rule.transform.top_p = kTopP;
    return settings;
  }

  void describe() {
    const DeviceId device = pair_.main->backend().device();
    report_.device = pair_.info.device;
    report_.title = options_.config + ", " + std::to_string(prompts_.size()) + " prompts of " +
                    options_.dataset + ", " + std::to_string(options_.max_tokens) +
                    " tokens, repeated " + std::to_string(options_.repeats) + " times; main " +
                    config_.main.quantization + ", expanded: " + config_.main.expand;
    if (device.kind == DeviceKind::kCuda) {
      report_.read_bandwidth = measure_read_bandwidth(device);
      for (const DeviceInfo& info : list_devices()) {
        if (info.id == device) report_.device += " (" + info.name + ")";
      }
    }
    const PairRequest request = pair_request(config_);
    const Placement whole = whole_placement(request.plan.main.config);
    report_.main_bytes = static_cast<double>(request.plan.main.pass_bytes(whole, device.kind));
  }

  /// @param loaded the pair's draft has this precision already
  void measure_draft(const std::string& quantization, bool loaded) {
    config_.draft->quantization = quantization;
    const PairRequest request = pair_request(config_);
    const PlannedModel& model = *request.plan.draft;
    const DeviceKind kind = pair_.main->backend().device().kind;
    DraftReport report;
    report.quantization = quantization;
    report.bytes_ratio =
        static_cast<double>(model.pass_bytes(whole_placement(model.config), kind)) /
        report_.main_bytes;
    if (!loaded) report.load_seconds = replace_draft(request);
    report.pass_seconds = time_passes(*pair_.draft, 2, options_.context);
    warm_up();
    for (const int k : options_.draft_lengths) report.series.emplace_back().draft_length = k;
    for (int repetition = 0; repetition < options_.repeats; ++repetition) {
      for (const std::vector<int32_t>& prompt : prompts_) take_turns(prompt, report);
    }
    report.overheads.push_back(overhead("greedy", greedy(kOverheadDrafts), report));
    report.overheads.push_back(overhead("sampling", sampled(kOverheadDrafts), report));
    report_.drafts.push_back(std::move(report));
  }

  double replace_draft(const PairRequest& request) {
    const auto begin = std::chrono::steady_clock::now();
    Backend& backend = pair_.draft->backend();
    const PlannedModel& model = *request.plan.draft;
    Transformer::Options wanted{pair_.draft->limits(), model.role, model.formats, {}};
    pair_.decoder.reset();
    pair_.draft.reset();
    const std::unique_ptr<WeightSource> source = request.draft_checkpoint.open();
    pair_.draft = std::make_unique<Transformer>(model.config, ModelShard::whole(model.config),
                                                *source, backend, wanted);
    std::unique_ptr<Drafter> drafter = RemoteDrafter::around(
        std::make_unique<ModelDrafter>(*pair_.draft, pair_.main->vocab_size(), pair_.draft_tokens),
        backend, *pair_.main, kMaxSpeculativeTokens);
    pair_.decoder = std::make_unique<SpeculativeDecoder>(*pair_.main, std::move(drafter),
                                                         kMaxSpeculativeTokens);
    return seconds_since(begin);
  }

  /// Every K's work is captured before anything is timed.
  void warm_up() {
    decode(*pair_.decoder, prompts_.front(), greedy(0), kWarmUpTokens);
    for (const int k : options_.draft_lengths) {
      decode(*pair_.decoder, prompts_.front(), greedy(k), kWarmUpTokens);
    }
  }

  void take_turns(const std::vector<int32_t>& prompt, DraftReport& report) {
    const DecodeRun plain = decode(*pair_.decoder, prompt, greedy(0), options_.max_tokens);
    report.plain.add(plain);
    for (SpeculativeSeries& series : report.series) {
      const DecodeRun run =
          decode(*pair_.decoder, prompt, greedy(series.draft_length), options_.max_tokens);
      series.run.add(run);
      series.ratios.push_back(run.tokens_per_second() / plain.tokens_per_second());
      const size_t common = std::min(run.tokens.size(), plain.tokens.size());
      series.same_text =
          series.same_text &&
          std::equal(run.tokens.begin(), run.tokens.begin() + static_cast<std::ptrdiff_t>(common),
                     plain.tokens.begin());
    }
  }

  RoundOverhead overhead(const char* rule, const DecodeSettings& settings,
                         const DraftReport& report) {
    decode(*pair_.decoder, prompts_.front(), settings, kWarmUpTokens);
    const DecodeRun run = decode(*pair_.decoder, prompts_.front(), settings, options_.max_tokens);
    constexpr int k = kOverheadDrafts;
    RoundOverhead found;
    found.rule = rule;
    found.draft_length = k;
    found.round_seconds = run.seconds / static_cast<double>(std::max<int64_t>(run.rounds, 1));
    // The first draft step takes two rows (DESIGN 3).
    found.forward_seconds = report.pass_seconds[2] + (k - 1) * report.pass_seconds[1] +
                            report_.main_pass_seconds[static_cast<size_t>(k) + 1];
    return found;
  }

  const Options& options_;
  Config config_;
  LoadedPair pair_;
  std::vector<std::vector<int32_t>> prompts_;
  DecodeReport report_;
};

void add_options(CLI::App& app, Options& options) {
  app.add_option("--config", options.config, "Configuration of the pair")->capture_default_str();
  app.add_option("--dataset", options.dataset, "JSONL file whose lines hold a \"prompt\"")
      ->required();
  app.add_option("--device", options.device, "Of the main model: overrides the configuration's");
  app.add_option("--split", options.split, "Of the main model over several devices");
  app.add_option("--draft-device", options.draft_device, "Of the draft");
  app.add_option("--quantization", options.quantization, "Of the main model");
  app.add_option("--expand", options.expand, "Shape of the main model: 1B, 8B or 70B");
  app.add_option("--draft-expand", options.draft_expand, "Shape of the draft");
  app.add_option("--draft-quantization", options.draft_quantizations,
                 "Precisions of the draft, one after the other; the largest first")
      ->delimiter(',');
  app.add_option("--num-speculative-tokens", options.draft_lengths, "The K to time")
      ->delimiter(',')
      ->check(CLI::Range(1, kMaxSpeculativeTokens));
  app.add_option("--limit", options.limit, "Prompts to use")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--max-tokens", options.max_tokens, "Tokens a run")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--repeats", options.repeats, "Repetitions")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--context", options.context, "Positions in front of passes timed alone")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", options.threads, "CPU threads; 0: all cores")->capture_default_str();
  app.add_flag("--json", options.json, "Print JSON instead of tables");
  app.add_option("--output", options.output, "Write JSON to this file besides");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Times greedy decoding of a pair, plain and with each K, interleaved"};
  add_options(app, options);
  CLI11_PARSE(app, argc, argv);
  try {
    const DecodeReport report = DecodeBench(options).run();
    if (!options.output.empty()) std::ofstream(options.output) << to_json(report) << "\n";
    if (options.json) {
      std::cout << to_json(report) << "\n";
    } else {
      print_tables(report);
    }
    return report.same_text() ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const Error& error) {
    std::cerr << "bench_decode: error: " << error.what() << "\n";
    return static_cast<int>(error.exit_code());
  }
}
