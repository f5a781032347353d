// The draft length "auto" against every fixed one, by the clock: with a good draft, with a poor one
// (noise in its weights), with a hopeless one (random weights) and with n-grams.
//
// Every prompt is decoded with every setting in turn, several times over; before each text the same
// setting runs for a few tokens behind another prompt, untimed, as it would have run before for
// somebody who uses this setting. Of each prompt and setting the median time counts; a setting's
// speed is all tokens over the sum of these times, the prefill left out and the first round
// included. The lines to meet: auto is at least 0.97 of the best fixed K everywhere, and with the
// hopeless draft at least 0.98 of plain decoding.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "bench/dataset.h"
#include "bench/run.h"
#include "decode_measure.h"
#include "noisy_draft.h"
#include "tandem/tandem.h"

namespace {

using namespace tandem;
using namespace tandem::bench;
namespace fs = std::filesystem;

constexpr double kOfBestLine = 0.97, kOfPlainLine = 0.98;
constexpr double kHopelessNoise = 1;

struct Options {
  std::string config = "configs/demo.json";
  std::string dataset;
  std::string device, expand, draft_expand, cost_table;
  std::vector<std::string> pairs = {"good", "poor", "hopeless", "ngram"};
  double noise = 0.15;
  int limit = 16;
  int max_tokens = 200;
  int repeats = 3;
  int most_drafts = 8;
  int threads = 0;
};

/// A folder that is gone with its owner.
class TemporaryDraft {
 public:
  TemporaryDraft(const fs::path& model, double noise)
      : path_(fs::temp_directory_path() / ("tandem-bench-auto-" + std::to_string(getpid()))) {
    write_noisy_model(model, path_, noise, /*seed=*/1);
  }
  ~TemporaryDraft() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryDraft(const TemporaryDraft&) = delete;
  TemporaryDraft& operator=(const TemporaryDraft&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// The rounds of a text, without the prompt's passes.
double round_seconds(const Stats& stats) {
  return stats.time_to_first_token_seconds - stats.prefill_seconds + stats.decode_seconds;
}

struct Series {
  Setting setting;
  std::vector<std::vector<double>> seconds;  ///< by prompt: of its repeats
  Stats totals;

  double tokens_per_second(int repeats) const {
    double sum = 0;
    for (const auto& of_prompt : seconds) sum += median(of_prompt);
    return static_cast<double>(totals.num_tokens) / repeats / sum;
  }
};

/// The median over prompts and repeats of a text's speed over another setting's just beside it.
double paired_ratio(const Series& of, const Series& over) {
  std::vector<double> ratios;
  for (size_t prompt = 0; prompt < of.seconds.size(); ++prompt) {
    for (size_t i = 0; i < of.seconds[prompt].size(); ++i) {
      ratios.push_back(over.seconds[prompt][i] / of.seconds[prompt][i]);
    }
  }
  return median(ratios);
}

std::vector<Series> measure(Engine& engine, const PairUnderTest& pair,
                            const std::vector<Prompt>& prompts, int repeats) {
  const RunOptions run;
  PairRunner runner(engine, pair, prompts, run);
  std::vector<Series> all;
  for (const Setting& setting : pair.settings) {
    all.push_back({setting, std::vector<std::vector<double>>(prompts.size()), {}});
  }
  runner.warm_up();
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (size_t prompt = 0; prompt < prompts.size(); ++prompt) {
      for (const size_t setting : interleaved_order(prompt, repeat, all.size())) {
        runner.settle((prompt + 1) % prompts.size(), setting);
        const Sample sample = runner.run(prompt, 0, setting);
        all[setting].seconds[prompt].push_back(round_seconds(sample.stats));
        all[setting].totals += sample.stats;
      }
    }
  }
  return all;
}

/// @return whether the lines are met
bool report(const std::string& name, const std::vector<Series>& all, int repeats) {
  const Series &plain = all.front(), &chosen = all.back();
  const auto speed = [&](const Series& series) { return series.tokens_per_second(repeats); };
  const Series* best = &plain;
  std::printf("  %-6s %9s %8s %7s %11s %7s %14s\n", "K", "tokens/s", "x plain", "paired",
              "accept rate", "E", "tokens a round");
  for (const Series& series : all) {
    std::printf("  %-6s %9.0f %8.3f %7.3f %11.3f %7.2f %14.2f\n",
                series.setting.draft_length().c_str(), speed(series), speed(series) / speed(plain),
                paired_ratio(series, plain), series.totals.acceptance_rate(),
                series.totals.mean_acceptance_length(), series.totals.mean_draft_length());
    if (&series != &chosen && speed(series) > speed(*best)) best = &series;
  }
  const double of_best = speed(chosen) / speed(*best), of_plain = speed(chosen) / speed(plain);
  bool met = of_best >= kOfBestLine;
  std::printf("  %s: auto over the best fixed (%s): %.3f, paired %.3f, line %.2f: %s\n",
              name.c_str(), best->setting.draft_length().c_str(), of_best,
              paired_ratio(chosen, *best), kOfBestLine, met ? "met" : "MISSED");
  if (name == "hopeless") {
    const bool as_plain = of_plain >= kOfPlainLine;
    std::printf("  %s: auto over plain: %.3f, paired %.3f, line %.2f: %s\n", name.c_str(), of_plain,
                paired_ratio(chosen, plain), kOfPlainLine, as_plain ? "met" : "MISSED");
    met = met && as_plain;
  }
  std::fflush(stdout);
  return met;
}

bool run_pair(const Options& options, const std::string& name, const std::vector<Prompt>& prompts) {
  PairUnderTest pair;
  pair.name = name;
  pair.config = Config::from_file(options.config);
  Config& config = pair.config;
  config.cpu_threads = options.threads;
  config.sampling.temperature = 0;
  config.sampling.max_tokens = options.max_tokens;
  config.sampling.ignore_eos = true;
  config.speculation.num_speculative_tokens.reset();
  config.speculation.max_speculative_tokens = options.most_drafts;
  if (!options.device.empty()) config.main.devices = options.device;
  if (!options.expand.empty()) config.main.expand = options.expand;
  if (!options.cost_table.empty()) config.speculation.cost_table = options.cost_table;
  std::optional<TemporaryDraft> draft;
  if (name == "ngram") {
    config.speculation.method = "ngram";
  } else {
    if (!config.draft) throw UsageError(options.config + ": names no draft model");
    if (!options.draft_expand.empty()) config.draft->expand = options.draft_expand;
    if (name != "good") {
      draft.emplace(config.draft->model, name == "poor" ? options.noise : kHopelessNoise);
      config.draft->model = draft->path();
    }
  }
  pair.settings.push_back({0, 0, ""});
  for (int k = 1; k <= options.most_drafts; ++k) pair.settings.push_back({k, 0, "greedy"});
  pair.settings.push_back({Setting::kAuto, 0, "greedy"});

  const auto engine = Engine::from_config(config);
  std::printf("\n%s on %s; T(K) at the load, in plain steps:", name.c_str(),
              engine->info().device.c_str());
  const CostTable& costs = engine->info().costs;
  for (int k = 0; k <= costs.max_drafts(); ++k) std::printf(" %.2f", costs.round_cost(k));
  std::printf("\n");
  std::fflush(stdout);
  return report(name, measure(*engine, pair, prompts, options.repeats), options.repeats);
}

int run(const Options& options) {
  const Dataset dataset =
      options.dataset.empty() ? bundled_dataset() : read_dataset(options.dataset, false);
  std::vector<Prompt> prompts = limit_prompts(dataset.prompts, options.limit);
  for (Prompt& prompt : prompts) prompt.turns.resize(1);
  std::printf("%s, %zu prompts of %s, %d tokens, repeated %d times; poor: noise %g\n",
              options.config.c_str(), prompts.size(), dataset.name.c_str(), options.max_tokens,
              options.repeats, options.noise);
  bool met = true;
  for (const std::string& name : options.pairs) met = run_pair(options, name, prompts) && met;
  return met ? EXIT_SUCCESS : EXIT_FAILURE;
}

void add_options(CLI::App& app, Options& options) {
  app.add_option("--config", options.config, "Configuration of the pair")->capture_default_str();
  app.add_option("--dataset", options.dataset, "JSON lines; the bundled prompts without it");
  app.add_option("--pairs", options.pairs, "What to measure: good, poor, hopeless, ngram")
      ->delimiter(',')
      ->check(CLI::IsMember({"good", "poor", "hopeless", "ngram"}));
  app.add_option("--noise", options.noise, "In the poor draft's weights, 0 to 1")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--limit", options.limit, "Prompts to use; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-tokens", options.max_tokens, "Tokens a text")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--repeats", options.repeats, "Repetitions")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--max-drafts", options.most_drafts, "The largest K")
      ->capture_default_str()
      ->check(CLI::Range(1, 15));
  app.add_option("--device", options.device, "Overrides the configuration's");
  app.add_option("--expand", options.expand, "Shape of the main model: 1B, 8B or 70B");
  app.add_option("--draft-expand", options.draft_expand, "Shape of the drafts");
  app.add_option("--cost-table", options.cost_table, "Instead of timing rounds at the load");
  app.add_option("--threads", options.threads, "CPU threads; 0: all cores")->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Measures the draft length auto against every fixed one, in turns"};
  add_options(app, options);
  CLI11_PARSE(app, argc, argv);
  try {
    return run(options);
  } catch (const Error& error) {
    std::cerr << "bench_auto: error: " << error.what() << "\n";
    return static_cast<int>(error.exit_code());
  }
}
