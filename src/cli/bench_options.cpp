#include "cli/bench_options.h"

#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <filesystem>

#include "bench/round_costs.h"
#include "core/text.h"
#include "engine/synthetic_check.h"
#include "tandem/error.h"

namespace tandem::cli {
namespace {

using bench::PairUnderTest;
using bench::Setting;

/// The largest K there is (DESIGN 8).
constexpr int kMostSpeculativeTokens = 15;

template <typename T>
void push_new(std::vector<T>& values, const T& value) {
  if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
}

int parse_draft_length(const std::string& text) {
  if (text == "auto") return Setting::kAuto;
  int value = -1;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end || value < 0 ||
      value > kMostSpeculativeTokens) {
    throw UsageError("--num-speculative-tokens holds '" + text +
                     "'; expected 'auto' or integers from 0 to 15, such as 1,2,4,8,auto");
  }
  return value;
}

/// Plain decoding at each temperature, then every rule and draft length. K = 0 is plain decoding.
std::vector<Setting> make_settings(const std::vector<float>& temperatures,
                                   const std::vector<std::string>& rules,
                                   const std::vector<int>& draft_lengths, bool drafts) {
  std::vector<Setting> settings;
  for (const float temperature : temperatures) {
    Setting plain;
    plain.temperature = temperature;
    push_new(settings, plain);
  }
  if (!drafts) return settings;
  for (const float temperature : temperatures) {
    for (const std::string& rule : rules) {
      for (const int k : draft_lengths) {
        if (k != 0) push_new(settings, {k, temperature, temperature == 0 ? "greedy" : rule});
      }
    }
  }
  return settings;
}

std::string pair_name(const std::string& path) {
  const std::filesystem::path file(path);
  return file.stem().empty() ? file.parent_path().stem().string() : file.stem().string();
}

}  // namespace

void BenchOptions::add_to(CLI::App& sub) {
  const char* const kModels = "Models";
  sub.add_option("--config", configs, "Configuration of a pair; give several to compare pairs")
      ->type_name("FILE")
      ->group(kModels)
      ->allow_extra_args();
  sub.add_option("--main", main_model, "Folder of the main model, instead of a configuration")
      ->type_name("DIR")
      ->group(kModels);
  sub.add_option("--draft", draft_model, "Folder of the draft model")
      ->type_name("DIR")
      ->group(kModels);
  sub.add_option("--device", device, "Devices to use, such as cuda:0 or cpu")
      ->type_name("D[,D...]")
      ->group(kModels);
  sub.add_option("--max-model-len", max_model_len, "Context in tokens, prompt and output together")
      ->type_name("N")
      ->group(kModels);
  conversions.add_to(sub, kModels);
  sub.add_option("--threads", threads, "CPU threads; 0: every core")
      ->type_name("N")
      ->group(kModels);

  const char* const kPrompts = "Prompts";
  sub.add_option("--dataset", datasets,
                 "JSON lines: Spec-Bench, HumanEval, GSM8K, ShareGPT or {\"prompt\": ...}; may be "
                 "given several times; without it the prompts that come with tandem")
      ->type_name("FILE")
      ->group(kPrompts);
  sub.add_option("--limit", limit, "Prompts of each data set, every category in turn; 0: all")
      ->type_name("N")
      ->group(kPrompts)
      ->check(CLI::NonNegativeNumber);
  sub.add_option("--max-turns", run.max_turns, "Turns of a conversation; 0: all")
      ->type_name("N")
      ->group(kPrompts)
      ->check(CLI::NonNegativeNumber);
  sub.add_option("--prompt-template", run.prompt_template,
                 "What the model reads for a turn, with {prompt} in its place")
      ->type_name("TEXT")
      ->group(kPrompts)
      ->capture_default_str();
  sub.add_flag("--skip-bad", skip_bad, "Leave malformed lines out instead of ending with an error")
      ->group(kPrompts);

  const char* const kSettings = "Settings (lists: every combination is measured)";
  sub.add_option("--method", methods, "draft_model, ngram")
      ->type_name("M[,M...]")
      ->group(kSettings)
      ->delimiter(',');
  sub.add_option("--num-speculative-tokens", draft_lengths, "Draft tokens a round; auto adapts")
      ->type_name("K[,K...]")
      ->group(kSettings)
      ->delimiter(',')
      ->capture_default_str();
  sub.add_option("--rejection-sample-method", rules,
                 "rejection, block, coupled; at temperature 0 all are greedy")
      ->type_name("R[,R...]")
      ->group(kSettings)
      ->delimiter(',');
  sub.add_option("--temperature", temperatures, "0 decodes greedily")
      ->type_name("T[,T...]")
      ->group(kSettings)
      ->delimiter(',');
  sub.add_option("--cost-table", cost_table,
                 "What rounds cost, for auto and predictions, instead of timing rounds at the load "
                 "and in turns with the settings")
      ->type_name("FILE")
      ->group(kSettings);
  synthetic.add_to(sub, kSettings);
  sub.add_option("--max-tokens", max_tokens, "Tokens of each text")
      ->type_name("N")
      ->group(kSettings);
  sub.add_flag("--ignore-eos", ignore_eos, "Go on after an end-of-sequence token")
      ->group(kSettings);
  sub.add_option("--seed", run.seed, "Key of all random numbers")
      ->type_name("S")
      ->group(kSettings)
      ->capture_default_str();
  sub.add_option("--repeats", run.repeats, "How often each prompt runs with each setting")
      ->type_name("N")
      ->group(kSettings)
      ->capture_default_str()
      ->check(CLI::PositiveNumber);

  const char* const kOutput = "Output";
  sub.add_option("--out", out,
                 "Folder for report.json, report.html and the journal; a run that was stopped goes "
                 "on from it")
      ->type_name("DIR")
      ->group(kOutput);
  sub.add_flag("--json", json, "Print report.json instead of a table")->group(kOutput);
}

std::vector<PairUnderTest> BenchOptions::make_pairs() {
  if (configs.empty() && !main_model) {
    throw UsageError(
        "no model is given; name configurations with --config FILE or a model with --main DIR");
  }
  if (!configs.empty() && (main_model || draft_model)) {
    throw UsageError("--main and --draft stand for a configuration; give them, or --config");
  }
  if (run.prompt_template.find(bench::kPromptMark) == std::string::npos) {
    throw UsageError("--prompt-template has no {prompt}; put it where the prompt belongs");
  }
  if (find_invalid_utf8(run.prompt_template)) {
    throw UsageError("--prompt-template is not valid UTF-8");
  }
  std::vector<int> lengths;
  for (const std::string& text : draft_lengths) push_new(lengths, parse_draft_length(text));
  run.synthetic_rates = synthetic.rates();
  const int longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());

  std::vector<PairUnderTest> pairs;
  const auto add = [&](const std::string& name, Config config) {
    if (device) {
      config.main.devices = *device;
      if (config.draft) config.draft->device = "auto";
    }
    if (max_model_len) config.main.max_model_len = *max_model_len;
    if (max_tokens) config.sampling.max_tokens = *max_tokens;
    if (ignore_eos) config.sampling.ignore_eos = true;
    if (synthetic.given()) config.sampling.ignore_eos = true;
    conversions.apply_to(config);
    config.cpu_threads = threads;
    if (cost_table) config.speculation.cost_table = *cost_table;
    Config::Speculation& speculation = config.speculation;
    const std::vector<std::string> chosen_methods =
        methods.empty() ? std::vector{speculation.method} : methods;
    const std::vector<std::string> chosen_rules =
        rules.empty() ? std::vector{speculation.rejection_sample_method} : rules;
    const std::vector<float> chosen_temperatures =
        temperatures.empty() ? std::vector{config.sampling.temperature} : temperatures;
    for (const float temperature : chosen_temperatures) {
      SamplingParams sampling = config.sampling;
      sampling.temperature = temperature;
      sampling.validate();
    }
    for (const std::string& rule : chosen_rules) {
      speculation.rejection_sample_method = rule;
      config.validate();
    }
    speculation.num_speculative_tokens.reset();
    speculation.max_speculative_tokens = std::max(speculation.max_speculative_tokens, longest);
    for (const std::string& method : chosen_methods) {
      PairUnderTest pair{name, config, {}};
      pair.config.speculation.method = method;
      pair.config.validate();
      require_synthetic(pair.config);
      pair.settings = make_settings(chosen_temperatures, chosen_rules, lengths, method != "none");
      if (method == "draft_model" && !pair.config.speculation.cost_table) {
        const std::vector<Setting> timing =
            bench::timing_settings(pair.settings, speculation.max_speculative_tokens);
        pair.settings.insert(pair.settings.end(), timing.begin(), timing.end());
      }
      pairs.push_back(std::move(pair));
    }
  };
  for (size_t i = 0; i < configs.size(); ++i) {
    Config config = Config::from_file(configs[i]);
    config.source += " with the options of the command line";
    std::string name = pair_name(configs[i]);
    const auto same = std::count_if(pairs.begin(), pairs.end(),
                                    [&](const PairUnderTest& pair) { return pair.name == name; });
    if (same > 0) name += " (" + std::to_string(i + 1) + ")";
    add(name, std::move(config));
  }
  if (main_model) {
    Config config;
    config.source = "command line";
    config.main.model = *main_model;
    if (draft_model) {
      config.draft.emplace();
      config.draft->model = *draft_model;
    } else {
      config.speculation.method = methods.empty() ? "ngram" : methods.front();
    }
    add(pair_name(*main_model), std::move(config));
  }
  return pairs;
}

void BenchOptions::require_synthetic(const Config& config) const {
  Request request;
  request.params = config.sampling;
  request.synthetic_acceptance_rates = run.synthetic_rates;
  check_synthetic_acceptance(request, config.speculation.method,
                             config.speculation.max_speculative_tokens);
}

std::vector<bench::Dataset> BenchOptions::read_datasets() const {
  std::vector<bench::Dataset> read;
  for (const std::string& file : datasets) read.push_back(bench::read_dataset(file, skip_bad));
  if (read.empty()) read.push_back(bench::bundled_dataset());
  for (bench::Dataset& dataset : read) {
    dataset.prompts = bench::limit_prompts(dataset.prompts, limit);
  }
  return read;
}

nlohmann::ordered_json BenchOptions::settings_json(const std::vector<PairUnderTest>& pairs,
                                                   const std::vector<bench::Dataset>& read) const {
  nlohmann::ordered_json settings;
  for (const bench::Dataset& dataset : read) {
    char hash[17];
    std::snprintf(hash, sizeof hash, "%016" PRIx64, dataset.hash);
    settings["datasets"].push_back(dataset.name + " " + hash);
  }
  settings["limit"] = limit;
  settings["max_turns"] = run.max_turns;
  settings["prompt_template"] = run.prompt_template;
  settings["seed"] = run.seed;
  settings["repeats"] = run.repeats;
  settings["synthetic_acceptance_rates"] = run.synthetic_rates;
  settings["max_tokens"] = nlohmann::ordered_json::array();
  settings["settings"] = nlohmann::ordered_json::array();
  settings["threads"] = threads;
  settings["configurations"] = nlohmann::ordered_json::array();
  for (const PairUnderTest& pair : pairs) {
    settings["max_tokens"].push_back(pair.config.sampling.max_tokens);
    auto labels = nlohmann::ordered_json::array();
    for (const Setting& setting : pair.settings) labels.push_back(setting.label());
    settings["settings"].push_back(std::move(labels));
    settings["configurations"].push_back(nlohmann::ordered_json::parse(pair.config.to_json()));
  }
  return settings;
}

}  // namespace tandem::cli
