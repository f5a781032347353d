// Costs of rounds, corrected by the rounds themselves.

#include "spec/cost_estimate.h"

#include <random>

#include "support/catch.h"

using namespace tandem;

namespace {

constexpr int kMaxDrafts = 6;

CostTable table() {
  CostTable costs = bandwidth_costs(0.1, kMaxDrafts);
  costs.draft_catch_up_seconds = 0.05;
  return costs;
}

RoundOutcome round_of(int drafts, double seconds) {
  RoundOutcome outcome;
  outcome.num_drafts = drafts;
  outcome.draft_seconds = 0.25 * seconds;
  outcome.verify_seconds = 0.75 * seconds;
  return outcome;
}

/// Rounds of 0 … kMaxDrafts drafts, a few of each in turn, that take `pace` times `factor(k)` of
/// the table's time.
template <typename Factor>
void run(CostEstimate& estimate, double pace, int rounds, const Factor& factor) {
  std::mt19937_64 random(3);
  std::normal_distribution<double> noise(1, 0.05);
  constexpr int kInARow = 2 * CostEstimate::kUnsettledRounds;
  int plain = 0;
  for (int i = 0; i < rounds; ++i) {
    const int k = i / kInARow % (kMaxDrafts + 1);
    const double caught_up = k > 0 ? plain * table().draft_catch_up_seconds : 0;
    const double seconds = (table().round_seconds(k) + caught_up) * factor(k) * pace;
    estimate.observe(round_of(k, seconds * noise(random)), plain);
    plain = k == 0 ? plain + 1 : 0;
  }
}

}  // namespace

TEST_CASE("a table that stands is not touched", "[costs]") {
  CostEstimate estimate;
  estimate.set(table(), false);
  run(estimate, 3, 500, [](int k) { return k > 2 ? 2 : 1; });
  CHECK(estimate.costs() == table());
  CHECK_FALSE(estimate.learns());
}

TEST_CASE("a table is corrected where rounds take other times, and not by the machine's pace",
          "[costs]") {
  CostEstimate estimate;
  estimate.set(table(), true);
  for (int k = 0; k <= kMaxDrafts; ++k) {
    CHECK(estimate.costs().round_cost(k) == Approx(table().round_cost(k)));
  }
  const auto as_table = [](int) { return 1.0; };
  for (const double pace : {2.0, 1.0, 3.0}) run(estimate, pace, 1000, as_table);
  for (int k = 1; k <= kMaxDrafts; ++k) {
    CHECK(estimate.costs().round_cost(k) == Approx(table().round_cost(k)).epsilon(0.08));
  }
  // Drafting evicts the main model's weights: every round with drafts is dearer, wide ones more so.
  const auto evicted = [](int k) { return k == 0 ? 1.0 : k < 4 ? 1.5 : 1.8; };
  for (int text = 0; text < 10; ++text) run(estimate, 2, 1000, evicted);
  for (int k = 1; k <= kMaxDrafts; ++k) {
    CAPTURE(k);
    CHECK(estimate.costs().round_cost(k) ==
          Approx(table().round_cost(k) * evicted(k)).epsilon(0.08));
  }
  estimate.set(table(), true);
  CHECK(estimate.costs().round_cost(3) == Approx(table().round_cost(3)));
}

TEST_CASE("what is learnt of one K is held of its neighbours in part", "[costs]") {
  CostEstimate estimate;
  estimate.set(table(), true);
  for (int i = 0; i < 20; ++i) {
    for (int plain = 0; plain < 3; ++plain) {
      estimate.observe(round_of(0, 1), CostEstimate::kUnsettledRounds + plain);
    }
    estimate.observe(round_of(3, 2 * table().round_seconds(3)), 0);
  }
  const auto factor = [&](int k) { return estimate.costs().round_cost(k) / table().round_cost(k); };
  CHECK(factor(3) > 1.1);
  CHECK(factor(2) > 1.05);
  CHECK(factor(2) < factor(3));
  CHECK(factor(6) < factor(4));
}

TEST_CASE("rounds that say nothing are passed over", "[costs]") {
  CostEstimate estimate;
  estimate.set(table(), true);
  const CostTable before = estimate.costs();
  for (int plain = 0; plain < CostEstimate::kUnsettledRounds; ++plain) {
    estimate.observe(round_of(0, 50), plain);  // behind drafts
  }
  estimate.observe(round_of(3, 0), 0);                // no time
  estimate.observe(round_of(kMaxDrafts + 1, 50), 0);  // not in the table
  CHECK(estimate.costs() == before);
}
