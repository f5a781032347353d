#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

namespace tandem::cli {

/// Acceptance that is made up, for the commands that decode.
struct SyntheticOptions {
  std::optional<double> length;  ///< mean acceptance length, the extra token included
  std::vector<double> given_rates;

  /// @param group heading in the help
  void add_to(CLI::App& sub, const std::string& group);
  bool given() const { return length.has_value() || !given_rates.empty(); }
  /// For `Request::synthetic_acceptance_rates`; empty when nothing is given.
  /// @throws UsageError for a length that no round can have
  std::vector<double> rates() const;
  /// "acceptance length 3.5", for people; empty when nothing is given.
  std::string description() const;
};

}  // namespace tandem::cli
