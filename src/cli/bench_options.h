#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/dataset.h"
#include "bench/run.h"
#include "cli/conversion_options.h"
#include "cli/synthetic_options.h"

namespace tandem::cli {

/// What `tandem bench` was asked for. Empty lists leave the configuration's value.
struct BenchOptions {
  std::vector<std::string> configs;
  std::optional<std::string> main_model;
  std::optional<std::string> draft_model;
  std::optional<std::string> device;
  std::optional<int> max_model_len;
  ConversionOptions conversions;
  int threads = 0;

  std::vector<std::string> datasets;
  int limit = 0;
  bool skip_bad = false;
  bench::RunOptions run;

  std::vector<std::string> methods;
  std::vector<std::string> draft_lengths = {"1", "2", "4", "8", "auto"};
  std::vector<std::string> rules;
  std::vector<float> temperatures;
  std::optional<int> max_tokens;
  bool ignore_eos = false;
  std::optional<std::string> cost_table;
  SyntheticOptions synthetic;

  std::optional<std::string> out;
  bool json = false;

  void add_to(CLI::App& sub);
  /// Every combination of configuration and method, with every combination of temperature, rule and
  /// draft length as settings. Checks all values. @throws UsageError, ConfigError
  /// Takes what is common to all into `run`.
  std::vector<bench::PairUnderTest> make_pairs();
  /// @throws UsageError
  std::vector<bench::Dataset> read_datasets() const;
  /// All that decides what is measured, for the journal.
  nlohmann::ordered_json settings_json(const std::vector<bench::PairUnderTest>& pairs,
                                       const std::vector<bench::Dataset>& datasets) const;

 private:
  void require_synthetic(const Config& config) const;
};

}  // namespace tandem::cli
