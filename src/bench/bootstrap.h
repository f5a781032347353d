#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace tandem::bench {

/// A statistic of a sample and its 95 % confidence interval.
struct Estimate {
  double value = 0;
  /// Lower and upper end; none with fewer than two prompts.
  std::optional<std::pair<double, double>> interval;
};

/// Sums over prompts of what each column holds, in; the statistic, out.
using Statistic = std::function<double(std::span<const double> sums)>;

struct BootstrapOptions {
  int resamples = 2000;
  double confidence = 0.95;
  uint64_t seed = 0;
};

/// Percentile bootstrap over prompts (Efron 1979): prompts are drawn with replacement, because
/// rounds of one prompt resemble each other and prompts do not. Every statistic is computed from
/// the same resamples. A function of its arguments alone: the random numbers are Philox's.
/// @param columns [column][prompt], all of one length of at least 1
std::vector<Estimate> bootstrap(const std::vector<std::vector<double>>& columns,
                                std::span<const Statistic> statistics,
                                const BootstrapOptions& options = {});

/// The value below which the share `q` of the sorted values lies, interpolated linearly (type 7 of
/// Hyndman and Fan 1996). @pre not empty
double quantile(std::span<const double> sorted, double q);

}  // namespace tandem::bench
