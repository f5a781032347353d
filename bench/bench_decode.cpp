// Plain against speculative decoding of a pair, interleaved so that both see the same machine.
//
// Every repetition decodes every prompt plainly and with each K in turn. A prompt's figure is the
// median over the repetitions, the reported one the median over the prompts; ratios are taken
// within a repetition, before any median.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tandem/tandem.h"

namespace {

struct Options {
  std::string config = "configs/demo.json";
  std::string dataset;
  std::vector<int> draft_lengths = {1, 2, 3, 4, 5, 6, 7, 8};
  int limit = 10;
  int max_tokens = 200;
  int repeats = 5;
  int threads = 0;
  bool json = false;
};

/// What one setting (plain is K = 0) gave for each prompt and repetition.
struct Series {
  int draft_length = 0;
  std::vector<std::vector<double>> tokens_per_second;  // [prompt][repetition]
  std::vector<std::vector<double>> ratio;              // to plain, same prompt and repetition
  tandem::Stats stats;                                 // summed
  bool same_text = true;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double median_of_medians(const std::vector<std::vector<double>>& by_prompt) {
  std::vector<double> medians;
  for (const auto& repetitions : by_prompt) medians.push_back(median(repetitions));
  return median(medians);
}

std::vector<std::string> read_prompts(const std::string& path, int limit) {
  std::ifstream file(path);
  if (!file)
    throw tandem::UsageError(path +
                             ": cannot be read; give a JSONL file whose lines hold a \"prompt\"");
  std::vector<std::string> prompts;
  std::string line;
  for (int number = 1; static_cast<int>(prompts.size()) < limit && std::getline(file, line);
       ++number) {
    const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object() || !object.contains("prompt") || !object["prompt"].is_string()) {
      throw tandem::UsageError(path + ":" + std::to_string(number) +
                               ": no JSON object with a \"prompt\" string");
    }
    prompts.push_back(object["prompt"].get<std::string>());
  }
  if (prompts.empty()) throw tandem::UsageError(path + ": holds no prompt");
  return prompts;
}

std::vector<Series> measure(tandem::Engine& engine, const std::vector<std::string>& prompts,
                            const Options& options) {
  std::vector<Series> all(1);
  for (const int k : options.draft_lengths) all.emplace_back().draft_length = k;
  for (Series& series : all) {
    series.tokens_per_second.resize(prompts.size());
    series.ratio.resize(prompts.size());
  }
  tandem::Request request;
  request.params.max_tokens = options.max_tokens;
  request.params.ignore_eos = true;
  request.params.seed = 0;
  for (int repetition = -1; repetition < options.repeats; ++repetition) {  // -1 warms up
    for (size_t p = 0; p < prompts.size(); ++p) {
      std::vector<int32_t> plain_ids;
      double plain = 0;
      for (Series& series : all) {
        request.prompt = prompts[p];
        request.num_speculative_tokens = series.draft_length;
        const tandem::Completion completion = engine.submit(request).wait().front();
        const double speed = completion.stats.tokens_per_second();
        if (series.draft_length == 0) {
          plain = speed;
          plain_ids = completion.token_ids;
        }
        series.same_text = series.same_text && completion.token_ids == plain_ids;
        if (repetition < 0) continue;
        series.tokens_per_second[p].push_back(speed);
        series.ratio[p].push_back(speed / plain);
        series.stats += completion.stats;
      }
    }
  }
  return all;
}

void print_table(const std::vector<Series>& all) {
  std::printf("%4s %10s %9s %11s %11s %12s %12s  %s\n", "K", "tokens/s", "x plain", "acceptance",
              "mean length", "draft ms/rd", "verify ms/rd", "same text");
  for (const Series& series : all) {
    const tandem::Stats& stats = series.stats;
    const double rounds = static_cast<double>(std::max<int64_t>(stats.num_rounds, 1));
    std::printf("%4d %10.0f %9.3f %11.3f %11.3f %12.4f %12.4f  %s\n", series.draft_length,
                median_of_medians(series.tokens_per_second), median_of_medians(series.ratio),
                stats.acceptance_rate(), stats.mean_acceptance_length(),
                1e3 * stats.draft_seconds / rounds, 1e3 * stats.verify_seconds / rounds,
                series.same_text ? "yes" : "NO");
  }
}

nlohmann::json to_json(const std::vector<Series>& all) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Series& series : all) {
    rows.push_back({{"num_speculative_tokens", series.draft_length},
                    {"tokens_per_second", median_of_medians(series.tokens_per_second)},
                    {"ratio_to_plain", median_of_medians(series.ratio)},
                    {"acceptance_rate", series.stats.acceptance_rate()},
                    {"mean_acceptance_length", series.stats.mean_acceptance_length()},
                    {"draft_seconds", series.stats.draft_seconds},
                    {"verify_seconds", series.stats.verify_seconds},
                    {"num_rounds", series.stats.num_rounds},
                    {"same_text", series.same_text}});
  }
  return rows;
}

int run(const Options& options) {
  double load[1] = {0};
  if (getloadavg(load, 1) != 1) load[0] = -1;
  tandem::Config config = tandem::Config::from_file(options.config);
  config.cpu_threads = options.threads;
  const auto engine = tandem::Engine::from_config(config);
  const std::vector<std::string> prompts = read_prompts(options.dataset, options.limit);
  const std::vector<Series> all = measure(*engine, prompts, options);
  if (options.json) {
    std::cout << nlohmann::json{{"load_before", load[0]},
                                {"prompts", prompts.size()},
                                {"settings", to_json(all)}}
              << "\n";
  } else {
    std::printf("%s, %zu prompts, %d tokens, median of %d; load before: %.2f\n",
                options.config.c_str(), prompts.size(), options.max_tokens, options.repeats,
                load[0]);
    print_table(all);
  }
  const bool same =
      std::all_of(all.begin(), all.end(), [](const Series& series) { return series.same_text; });
  return same ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Times greedy decoding of a pair, plain and with each K, interleaved"};
  app.add_option("--config", options.config, "Configuration of the pair")->capture_default_str();
  app.add_option("--dataset", options.dataset, "JSONL file whose lines hold a \"prompt\"")
      ->required();
  app.add_option("--num-speculative-tokens", options.draft_lengths, "The K to time")
      ->delimiter(',');
  app.add_option("--limit", options.limit, "Prompts to use")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--max-tokens", options.max_tokens, "Tokens a run")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--repeats", options.repeats, "Counted repetitions")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", options.threads, "CPU threads; 0: all cores")->capture_default_str();
  app.add_flag("--json", options.json, "Print JSON");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(options);
  } catch (const tandem::Error& error) {
    std::cerr << "bench_decode: error: " << error.what() << "\n";
    return static_cast<int>(error.exit_code());
  }
}
