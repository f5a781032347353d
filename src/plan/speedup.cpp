#include "plan/speedup.h"

namespace tandem {

double expected_round_tokens(double acceptance_rate, int num_drafts) {
  // The sum of the geometric series, term by term: exact at a = 1 and near it.
  double tokens = 1;
  double stands = 1;
  for (int i = 0; i < num_drafts; ++i) {
    stands *= acceptance_rate;
    tokens += stands;
  }
  return tokens;
}

double predicted_speedup(double acceptance_rate, int num_drafts, double cost_ratio) {
  return expected_round_tokens(acceptance_rate, num_drafts) / (1 + num_drafts * cost_ratio);
}

SpeedupPrediction best_speedup(double acceptance_rate, double cost_ratio, int max_drafts) {
  SpeedupPrediction best{acceptance_rate, 1, predicted_speedup(acceptance_rate, 1, cost_ratio)};
  for (int drafts = 2; drafts <= max_drafts; ++drafts) {
    const double speedup = predicted_speedup(acceptance_rate, drafts, cost_ratio);
    if (speedup > best.speedup) best = {acceptance_rate, drafts, speedup};
  }
  return best;
}

}  // namespace tandem
