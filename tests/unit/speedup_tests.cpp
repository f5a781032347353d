// Costs and the speed-up predicted from them.

#include "tandem/speedup.h"

#include <vector>

#include "support/catch.h"

using namespace tandem;

namespace {

CostTable some_costs() {
  CostTable costs;
  costs.verify_seconds = {0.25, 0.28, 0.32, 0.36, 0.44};
  costs.draft_first_seconds = 0.04;
  costs.draft_step_seconds = 0.025;
  costs.draft_catch_up_seconds = 0.004;
  return costs;
}

}  // namespace

TEST_CASE("predicted speed-up follows E / (1 + K b)") {
  const std::vector<double> half = {0.5}, most = {0.8}, all = {1.0}, none = {0.0};
  CHECK(expected_round_tokens(half, 1) == Approx(1.5));
  CHECK(expected_round_tokens(half, 3) == Approx((1 - 0.0625) / 0.5));
  CHECK(expected_round_tokens(all, 4) == 5.0);
  CHECK(expected_round_tokens(none, 4) == 1.0);
  CHECK(expected_round_tokens({}, 4) == 1.0);
  CHECK(predicted_speedup(bandwidth_costs(0.1, 8), half, 3) == Approx(1.875 / 1.3));

  const CostTable costs = bandwidth_costs(0.1, 8);
  const SpeedupPrediction best = best_speedup(costs, most);
  for (int drafts = 1; drafts <= 8; ++drafts)
    CHECK(predicted_speedup(costs, most, drafts) <= best.speedup);
  CHECK(best.speedup == predicted_speedup(costs, most, best.num_drafts));
  const CostTable dear = bandwidth_costs(0.9, 8);
  CHECK(best_speedup(dear, half).num_drafts == 1);
  CHECK(best_speedup(dear, half).speedup < 1);
  // A draft that costs nothing always helps.
  CHECK(best_speedup(bandwidth_costs(0, 8), half).num_drafts == 8);
}

TEST_CASE("each position has its own chance, and the last one holds for those behind it") {
  const std::vector<double> conditional = {0.9, 0.5};
  CHECK(expected_round_tokens(conditional, 0) == 1.0);
  CHECK(expected_round_tokens(conditional, 1) == Approx(1.9));
  CHECK(expected_round_tokens(conditional, 2) == Approx(1.9 + 0.45));
  CHECK(expected_round_tokens(conditional, 4) == Approx(1.9 + 0.45 + 0.225 + 0.1125));
}

TEST_CASE("a round costs its passes") {
  const CostTable costs = some_costs();
  CHECK(costs.max_drafts() == 4);
  CHECK(costs.draft_seconds(0) == 0.0);
  CHECK(costs.draft_seconds(1) == Approx(0.04));
  CHECK(costs.draft_seconds(3) == Approx(0.09));
  CHECK(costs.round_seconds(3) == Approx(0.45));
  CHECK(costs.round_cost(0) == 1.0);
  CHECK(costs.round_cost(3) == Approx(0.45 / 0.25));
  const std::vector<double> rate = {0.8};
  CHECK(predicted_speedup(costs, rate, 3) == Approx((1 + 0.8 + 0.64 + 0.512) / 1.8));
  CHECK(predicted_speedup(costs, rate, 0) == 1.0);
}

TEST_CASE("costs of another draft") {
  const CostTable half = with_draft_cost(some_costs(), 0.5);
  CHECK(half.draft_seconds(3) == Approx(0.045));
  CHECK(half.draft_catch_up_seconds == Approx(0.002));
  CHECK(half.verify_seconds == some_costs().verify_seconds);

  CostTable slow = some_costs();
  slow.draft_first_seconds = 0.3;
  slow.draft_step_seconds = 0.1;
  const CostTable hidden = with_hidden_draft(slow);
  CHECK(hidden.round_seconds(0) == 0.25);
  CHECK(hidden.round_seconds(1) == Approx(0.3));  // the draft is the longer one
  CHECK(hidden.round_seconds(4) == Approx(0.6));
  CHECK(with_hidden_draft(some_costs()).round_seconds(4) == Approx(0.44));  // the main model is
}

TEST_CASE("tokens per second leave out the first round") {
  const CostTable costs = some_costs();
  // 200 tokens, 4 a round: 50 rounds, of which 49 are timed, for 199 tokens.
  CHECK(predicted_rate_ratio(costs, 4, 3, 200) == Approx(199 / (49 * 1.8)));
  CHECK(predicted_rate_ratio(costs, 1, 0, 200) == Approx(1.0));
  CHECK(predicted_rate_ratio(costs, 4, 3, 4) == 0.0);
  CHECK(predicted_rate_ratio(costs, 4, 3, 1'000'000'000) == Approx(4 / 1.8));
}
