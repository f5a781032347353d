#include "bench/bootstrap.h"

#include <algorithm>
#include <cmath>

#include "core/philox.h"

namespace tandem::bench {
namespace {

/// `count` draws from 0 … n - 1 with replacement, as the number of times that each was drawn.
std::vector<double> draw_weights(size_t n, int resample, uint64_t seed) {
  std::vector<double> weights(n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    const PhiloxCounter counter = {static_cast<uint32_t>(i), static_cast<uint32_t>(resample), 0, 0};
    const PhiloxCounter words = philox4x32(counter, seed);
    const double u = uniform_open(words[0], words[1]);
    weights[std::min(static_cast<size_t>(u * static_cast<double>(n)), n - 1)] += 1;
  }
  return weights;
}

}  // namespace

double quantile(std::span<const double> sorted, double q) {
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(std::floor(place));
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - std::floor(place)) * (sorted[above] - sorted[below]);
}

std::vector<Estimate> bootstrap(const std::vector<std::vector<double>>& columns,
                                std::span<const Statistic> statistics,
                                const BootstrapOptions& options) {
  const size_t prompts = columns.empty() ? 0 : columns.front().size();
  std::vector<double> sums(columns.size(), 0.0);
  for (size_t c = 0; c < columns.size(); ++c) {
    for (const double value : columns[c]) sums[c] += value;
  }
  std::vector<Estimate> estimates;
  for (const Statistic& statistic : statistics) estimates.push_back({statistic(sums), {}});
  if (prompts < 2) return estimates;

  std::vector<std::vector<double>> drawn(statistics.size());
  for (int resample = 0; resample < options.resamples; ++resample) {
    const std::vector<double> weights = draw_weights(prompts, resample, options.seed);
    for (size_t c = 0; c < columns.size(); ++c) {
      double sum = 0;
      for (size_t i = 0; i < prompts; ++i) sum += weights[i] * columns[c][i];
      sums[c] = sum;
    }
    for (size_t s = 0; s < statistics.size(); ++s) drawn[s].push_back(statistics[s](sums));
  }
  const double tail = (1 - options.confidence) / 2;
  for (size_t s = 0; s < statistics.size(); ++s) {
    std::sort(drawn[s].begin(), drawn[s].end());
    estimates[s].interval.emplace(quantile(drawn[s], tail), quantile(drawn[s], 1 - tail));
  }
  return estimates;
}

}  // namespace tandem::bench
