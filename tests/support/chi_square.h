#pragma once

#include <cstdint>
#include <span>

namespace tandem::test {

/// P(X >= statistic) for X chi-square distributed with `dof` degrees of freedom.
double chi_square_p_value(double statistic, double dof);

struct ChiSquare {
  double statistic = 0;
  int dof = 0;
  double p_value = 1;
};

/// Pearson's test of counts against the probabilities they should follow. Cells in which fewer than
/// `min_expected` draws are expected are grouped, in order, until a group reaches that. A draw in a
/// cell of probability 0 gives p = 0.
/// @param counts and @param probabilities have one entry per cell; probabilities sum to 1
ChiSquare goodness_of_fit(std::span<const int64_t> counts, std::span<const double> probabilities,
                          double min_expected = 5);

/// The test that two samples follow one law, whatever it is. Cells are grouped by their pooled
/// counts in the same way.
ChiSquare same_law(std::span<const int64_t> first, std::span<const int64_t> second,
                   double min_expected = 5);

}  // namespace tandem::test
