#include "spec/cost_estimate.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace tandem {
namespace {

// Standard deviations, of logarithms.
constexpr double kUnknownPace = 2;
constexpr double kPaceStep = 0.02;     ///< of the pace, from round to round
constexpr double kTableError = 0.25;   ///< of a table just measured
constexpr double kTableStep = 0.0015;  ///< of what it misses, from round to round
constexpr double kNoise = 0.1;         ///< of a round
/// Correlation of what the table misses of K and of K + 1.
constexpr double kNeighbours = 0.9;
/// Standard deviations beyond which a round was held up and tells no more.
constexpr double kMostDeviations = 3;

double squared(double x) { return x * x; }

}  // namespace

void CostEstimate::set(const CostTable& table, bool learns) {
  table_ = costs_ = table;
  learns_ = learns;
  paced_ = false;
  if (!learns) return;
  states_ = std::min(table.verify_seconds.size(), kMostStates);
  for (size_t apart = 0; apart < kMostStates; ++apart) {
    alike_[apart] = std::pow(kNeighbours, static_cast<double>(apart));
  }
  mean_.fill(0);
  for (auto& row : covariance_) row.fill(0);
  covariance_[0][0] = squared(kUnknownPace);
  for (size_t a = 1; a < states_; ++a) {
    for (size_t b = 1; b < states_; ++b)
      covariance_[a][b] = squared(kTableError) * alike_[a > b ? a - b : b - a];
  }
  correct();
}

void CostEstimate::observe(const RoundOutcome& outcome, int uncached) {
  const auto k = static_cast<size_t>(outcome.num_drafts);
  if (!learns_ || k >= states_) return;
  if (k == 0 && uncached < kUnsettledRounds) return;
  const double caught_up = k > 0 ? uncached * table_.draft_catch_up_seconds : 0;
  const double expected = table_.round_seconds(outcome.num_drafts) + caught_up;
  const double seconds = outcome.draft_seconds + outcome.verify_seconds;
  if (expected <= 0 || seconds <= 0) return;
  paced_ = true;
  update(k, std::log(seconds / expected));
  correct();
}

double CostEstimate::plain_seconds() const {
  return paced_ ? table_.verify_seconds.front() * std::exp(mean_[0]) : 0;
}

/// One step of the filter. The observation is the pace, plus state k where that is not the pace.
void CostEstimate::update(size_t k, double logarithm) {
  covariance_[0][0] += squared(kPaceStep);
  for (size_t a = 1; a < states_; ++a) {
    for (size_t b = 1; b < states_; ++b)
      covariance_[a][b] += squared(kTableStep) * alike_[a > b ? a - b : b - a];
  }
  std::array<double, kMostStates> with_observed{};
  for (size_t a = 0; a < states_; ++a) {
    with_observed[a] = covariance_[a][0] + (k > 0 ? covariance_[a][k] : 0);
  }
  const double variance = with_observed[0] + (k > 0 ? with_observed[k] : 0) + squared(kNoise);
  const double most = kMostDeviations * std::sqrt(variance);
  const double error = std::clamp(logarithm - mean_[0] - (k > 0 ? mean_[k] : 0), -most, most);
  for (size_t a = 0; a < states_; ++a) {
    mean_[a] += with_observed[a] / variance * error;
    for (size_t b = 0; b < states_; ++b) {
      covariance_[a][b] -= with_observed[a] * with_observed[b] / variance;
    }
  }
}

void CostEstimate::correct() {
  costs_.draft_first_seconds = costs_.draft_step_seconds = 0;
  for (size_t k = 0; k < states_; ++k) {
    costs_.verify_seconds[k] =
        table_.round_seconds(static_cast<int>(k)) * (k > 0 ? std::exp(mean_[k]) : 1);
  }
}

}  // namespace tandem
