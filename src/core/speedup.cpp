#include "tandem/speedup.h"

#include <algorithm>

namespace tandem {

double CostTable::draft_seconds(int num_drafts) const {
  return num_drafts == 0 ? 0 : draft_first_seconds + (num_drafts - 1) * draft_step_seconds;
}

double CostTable::round_seconds(int num_drafts) const {
  return verify_seconds[static_cast<size_t>(num_drafts)] + draft_seconds(num_drafts);
}

double CostTable::round_cost(int num_drafts) const {
  return round_seconds(num_drafts) / verify_seconds.front();
}

CostTable bandwidth_costs(double cost_ratio, int max_drafts) {
  CostTable costs;
  costs.verify_seconds.assign(static_cast<size_t>(max_drafts) + 1, 1.0);
  costs.draft_first_seconds = cost_ratio;
  costs.draft_step_seconds = cost_ratio;
  return costs;
}

CostTable with_draft_cost(const CostTable& costs, double factor) {
  CostTable scaled = costs;
  scaled.draft_first_seconds *= factor;
  scaled.draft_step_seconds *= factor;
  scaled.draft_catch_up_seconds *= factor;
  return scaled;
}

CostTable with_hidden_draft(const CostTable& costs) {
  CostTable hidden;
  for (int drafts = 0; drafts <= costs.max_drafts(); ++drafts) {
    hidden.verify_seconds.push_back(
        std::max(costs.verify_seconds[static_cast<size_t>(drafts)], costs.draft_seconds(drafts)));
  }
  return hidden;
}

double expected_round_tokens(std::span<const double> conditional, int num_drafts) {
  // The sum of the geometric series, term by term: exact at a = 1 and near it.
  double tokens = 1;
  double stands = conditional.empty() ? 0 : 1;
  for (size_t i = 0; i < static_cast<size_t>(num_drafts) && stands > 0; ++i) {
    stands *= conditional[std::min(i, conditional.size() - 1)];
    tokens += stands;
  }
  return tokens;
}

std::vector<double> acceptance_rates_of_length(double length) {
  std::vector<double> rates;
  for (double left = length - 1; left > 0 || rates.empty(); left -= 1) {
    rates.push_back(std::clamp(left, 0.0, 1.0));
  }
  return rates;
}

double predicted_speedup(const CostTable& costs, std::span<const double> conditional,
                         int num_drafts) {
  return expected_round_tokens(conditional, num_drafts) / costs.round_cost(num_drafts);
}

double predicted_rate_ratio(const CostTable& costs, double round_tokens, int num_drafts,
                            int64_t num_tokens) {
  const auto tokens = static_cast<double>(num_tokens);
  const double rounds = tokens / round_tokens;
  if (rounds <= 1) return 0;  // no time is counted when one round gives the whole text
  return (tokens - 1) / ((rounds - 1) * costs.round_cost(num_drafts));
}

SpeedupPrediction best_speedup(const CostTable& costs, std::span<const double> conditional) {
  SpeedupPrediction best{1, predicted_speedup(costs, conditional, 1)};
  for (int drafts = 2; drafts <= costs.max_drafts(); ++drafts) {
    const double speedup = predicted_speedup(costs, conditional, drafts);
    if (speedup > best.speedup) best = {drafts, speedup};
  }
  return best;
}

}  // namespace tandem
