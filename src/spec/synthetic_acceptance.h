#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tandem {

/// Acceptance that is made up, so that rounds can be timed without a draft that is good: how many
/// drafts of a round stand is drawn beforehand, whatever both models say. A function of the rates,
/// the seed and the round's number, known when the round is launched.
///
/// Draws are not independent: round n compares frac(s + n g), g the golden ratio's fraction and s
/// the seed's, with the rates. Every rate is met as by independent draws, but the mean over n
/// rounds lies within O(log n / n) of what was asked for (Kronecker sequence; Niederreiter 1992,
/// chapter 3).
class SyntheticAcceptance {
 public:
  /// Acceptance is the models'.
  SyntheticAcceptance() = default;
  /// @param rates [i]: the probability that the drafts 0 … i all stand; behind its end none does
  SyntheticAcceptance(std::span<const double> rates, uint64_t seed);

  bool active() const { return !rates_.empty(); }
  /// Drafts that stand in round `round` (>= 0) of a text, 0 … num_drafts.
  int accepted(int64_t round, int num_drafts) const;

 private:
  std::vector<double> rates_;
  double first_ = 0;
};

}  // namespace tandem
