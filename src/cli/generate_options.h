#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/pair_options.h"
#include "cli/process_options.h"
#include "cli/synthetic_options.h"
#include "tandem/config.h"

namespace tandem::cli {

/// What `tandem generate` was asked for. Empty options leave the configuration file's value, or its
/// default.
struct GenerateOptions {
  PairOptions pair;
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_file;

  std::optional<int> max_tokens;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<std::string> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  SyntheticOptions synthetic;
  int n = 1;
  std::optional<int> logprobs;

  std::optional<std::string> method;
  std::optional<std::string> num_speculative_tokens;
  std::optional<std::string> cost_table;
  std::optional<std::string> save_cost_table;
  std::optional<std::string> rejection_sample_method;
  bool allow_vocabulary_mismatch = false;
  std::optional<std::string> device;
  int threads = 0;
  ProcessOptions processes;

  bool baseline = false;
  bool color = false;
  bool json = false;
  std::optional<std::string> output;

  void add_to(CLI::App& sub);
  /// The file, if any, with these options over it. Checks all values. @throws ConfigError,
  /// UsageError
  Config make_config() const;
  /// @throws UsageError when there is none, when it cannot be read, or when it is not UTF-8
  std::string read_prompt() const;
};

}  // namespace tandem::cli
