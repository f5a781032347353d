#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "cli/conversion_options.h"
#include "tandem/config.h"

namespace tandem::cli {

/// The options that name a pair, for every command that takes one.
struct PairOptions {
  std::optional<std::string> config;
  std::optional<std::string> main_model;
  std::optional<std::string> draft_model;
  std::optional<int> max_model_len;
  ConversionOptions conversions;

  /// Adds --config, --main, --draft, --max-model-len and the conversions. @param group their
  /// heading in the help
  void add_to(CLI::App& sub, const std::string& group);
  /// The file, if any, with these options over it; a pair without a file and without a draft
  /// decodes plainly. Other options may still change it: `Config::validate` is the caller's.
  /// @throws UsageError when no model is named; ConfigError
  Config read() const;
};

}  // namespace tandem::cli
