#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "tandem/config.h"

namespace tandem::cli {

/// How weights are changed while loading: options that several subcommands share.
struct ConversionOptions {
  std::optional<std::string> quantization;
  std::optional<std::string> draft_quantization;
  std::optional<std::string> expand;
  std::optional<std::string> draft_expand;

  /// @param group heading in the help
  void add_to(CLI::App& sub, const std::string& group);
  /// Overrides what the configuration says; call when its draft is known.
  /// @throws UsageError for an option of the draft where there is none
  void apply_to(Config& config) const;
};

}  // namespace tandem::cli
