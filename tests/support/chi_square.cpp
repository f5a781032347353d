#include "support/chi_square.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace tandem::test {
namespace {

/// Regularised upper incomplete gamma function Q(a, x) (Abramowitz and Stegun, 6.5.29 and 6.5.31).
double upper_gamma(double a, double x) {
  constexpr int kMaxTerms = 100000;
  constexpr double kPrecision = 1e-15;
  if (x <= 0) return 1;
  const double scale = std::exp(a * std::log(x) - x - std::lgamma(a));
  if (x < a + 1) {
    double term = 1 / a, sum = term;
    for (int n = 1; n < kMaxTerms && term > sum * kPrecision; ++n) {
      term *= x / (a + n);
      sum += term;
    }
    return 1 - scale * sum;
  }
  // Lentz's method for the continued fraction.
  constexpr double kTiny = std::numeric_limits<double>::min();
  double b = x + 1 - a, c = 1 / kTiny, d = 1 / b, fraction = d;
  for (int n = 1; n < kMaxTerms; ++n) {
    const double factor = -n * (n - a);
    b += 2;
    d = factor * d + b;
    d = 1 / (std::abs(d) < kTiny ? kTiny : d);
    c = b + factor / c;
    if (std::abs(c) < kTiny) c = kTiny;
    fraction *= d * c;
    if (std::abs(d * c - 1) < kPrecision) break;
  }
  return scale * fraction;
}

/// The group of each cell, so that every group has weight >= `least` (but perhaps the last, which
/// is joined to the one before).
std::vector<int> group_cells(std::span<const double> weights, double least, int& groups) {
  std::vector<int> group(weights.size());
  groups = 0;
  double weight = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    group[i] = groups;
    weight += weights[i];
    if (weight >= least) {
      ++groups;
      weight = 0;
    }
  }
  for (int& g : group) g = g >= groups && groups > 0 ? groups - 1 : g;
  groups = std::max(groups, 1);
  return group;
}

}  // namespace

double chi_square_p_value(double statistic, double dof) {
  return dof <= 0 ? 1 : upper_gamma(dof / 2, statistic / 2);
}

ChiSquare goodness_of_fit(std::span<const int64_t> counts, std::span<const double> probabilities,
                          double min_expected) {
  const auto draws = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  std::vector<double> expected(counts.size());
  for (size_t i = 0; i < counts.size(); ++i) {
    expected[i] = draws * probabilities[i];
    if (probabilities[i] == 0 && counts[i] > 0) return {INFINITY, 1, 0};
  }
  int groups = 0;
  const std::vector<int> group = group_cells(expected, min_expected, groups);
  std::vector<double> seen(static_cast<size_t>(groups)), wanted(static_cast<size_t>(groups));
  for (size_t i = 0; i < counts.size(); ++i) {
    seen[static_cast<size_t>(group[i])] += static_cast<double>(counts[i]);
    wanted[static_cast<size_t>(group[i])] += expected[i];
  }
  ChiSquare result;
  for (size_t g = 0; g < seen.size(); ++g) {
    const double difference = seen[g] - wanted[g];
    result.statistic += difference * difference / wanted[g];
  }
  result.dof = groups - 1;
  result.p_value = chi_square_p_value(result.statistic, result.dof);
  return result;
}

ChiSquare same_law(std::span<const int64_t> first, std::span<const int64_t> second,
                   double min_expected) {
  const auto n1 = static_cast<double>(std::accumulate(first.begin(), first.end(), int64_t{0}));
  const auto n2 = static_cast<double>(std::accumulate(second.begin(), second.end(), int64_t{0}));
  const double smaller_share = std::min(n1, n2) / (n1 + n2);
  std::vector<double> pooled(first.size());
  for (size_t i = 0; i < first.size(); ++i) {
    pooled[i] = static_cast<double>(first[i] + second[i]) * smaller_share;
  }
  int groups = 0;
  const std::vector<int> group = group_cells(pooled, min_expected, groups);
  std::vector<double> a(static_cast<size_t>(groups)), b(static_cast<size_t>(groups));
  for (size_t i = 0; i < first.size(); ++i) {
    a[static_cast<size_t>(group[i])] += static_cast<double>(first[i]);
    b[static_cast<size_t>(group[i])] += static_cast<double>(second[i]);
  }
  ChiSquare result;
  for (size_t g = 0; g < a.size(); ++g) {
    const double all = a[g] + b[g];
    const double e1 = all * n1 / (n1 + n2), e2 = all * n2 / (n1 + n2);
    result.statistic += (a[g] - e1) * (a[g] - e1) / e1 + (b[g] - e2) * (b[g] - e2) / e2;
  }
  result.dof = groups - 1;
  result.p_value = chi_square_p_value(result.statistic, result.dof);
  return result;
}

}  // namespace tandem::test
