// The rules as mathematics: every draft sequence and every decision of one round is enumerated, and
// the law of the emitted tokens is compared with the main model's to rounding.

#include <cmath>
#include <functional>
#include <random>

#include "reference_rules.h"
#include "support/catch.h"

using namespace tandem::test;

namespace {

using Law = std::vector<double>;

/// Conditional laws of a next token behind every prefix of up to K tokens, numbered as base-V
/// digits, level by level.
struct Tree {
  int vocab = 0;
  std::vector<std::vector<Law>> levels;  ///< levels[n][prefix of n tokens] (V)
};

enum class Quality { kEqual, kClose, kFar, kDisjoint, kCertain, kPartlyEqual };

Law random_law(int vocab, std::mt19937_64& random) {
  std::exponential_distribution<double> exponential(1);
  Law law(static_cast<size_t>(vocab));
  double sum = 0;
  for (double& p : law) sum += p = std::pow(exponential(random), 2);
  for (double& p : law) p /= sum;
  return law;
}

/// The law with its odd (or even) ids alone.
Law half_of(Law law, size_t parity) {
  double sum = 0;
  for (size_t x = 0; x < law.size(); ++x) sum += law[x] *= x % 2 == parity ? 1.0 : 0.0;
  for (double& p : law) p /= sum;
  return law;
}

Law draft_law(const Law& main, Quality quality, size_t level, std::mt19937_64& random) {
  const int vocab = static_cast<int>(main.size());
  Law other = random_law(vocab, random);
  switch (quality) {
    case Quality::kEqual:
      return main;
    case Quality::kClose:
      for (size_t x = 0; x < main.size(); ++x) other[x] = 0.8 * main[x] + 0.2 * other[x];
      return other;
    case Quality::kFar:
      return other;
    case Quality::kDisjoint:
      return half_of(other, 1);
    case Quality::kCertain: {
      Law certain(main.size(), 0.0);
      certain[random() % main.size()] = 1;
      return certain;
    }
    case Quality::kPartlyEqual:
      return level % 2 == 0 ? main : other;
  }
  return main;
}

size_t power(size_t base, size_t exponent) {
  size_t result = 1;
  while (exponent-- > 0) result *= base;
  return result;
}

/// The law of the first K + 1 tokens when one round with K drafts is followed by plain decoding.
Law emitted_law(const Tree& main, const Tree& draft, size_t k,
                RoundRule (*rule_of)(const RoundInput&), double* mean) {
  const auto v = static_cast<size_t>(main.vocab);
  Law law(power(v, k + 1), 0.0);
  *mean = 0;
  for (size_t drafts = 0; drafts < power(v, k); ++drafts) {
    RoundInput input;
    double drawn = 1;
    std::vector<size_t> prefixes = {0};
    for (size_t i = 0; i < k; ++i) {
      const size_t d = drafts / power(v, k - 1 - i) % v;
      input.drafts.push_back(static_cast<int>(d));
      input.q.push_back(draft.levels[i][prefixes[i]]);
      input.p.push_back(main.levels[i][prefixes[i]]);
      drawn *= input.q[i][d];
      prefixes.push_back(prefixes[i] * v + d);
    }
    input.p.push_back(main.levels[k][prefixes[k]]);
    if (drawn == 0) continue;
    const RoundRule rule = rule_of(input);
    *mean += drawn * mean_accepted(rule);
    for (size_t tau = 0; tau <= k; ++tau) {
      for (size_t y = 0; y < v; ++y) {
        const double probability = drawn * rule.accepted[tau] * rule.next[tau][y];
        if (probability == 0) continue;
        // What follows comes from the main model itself.
        const std::function<void(size_t, size_t, double)> extend = [&](size_t n, size_t prefix,
                                                                       double weight) {
          if (n == k + 1) {
            law[prefix] += weight;
            return;
          }
          for (size_t x = 0; x < v; ++x) {
            extend(n + 1, prefix * v + x, weight * main.levels[n][prefix][x]);
          }
        };
        extend(tau + 1, prefixes[tau] * v + y, probability);
      }
    }
  }
  return law;
}

}  // namespace

TEST_CASE("one round emits the main model's law exactly, for rejection and block", "[rules]") {
  const auto quality = GENERATE(Quality::kEqual, Quality::kClose, Quality::kFar, Quality::kDisjoint,
                                Quality::kCertain, Quality::kPartlyEqual);
  const int vocab = GENERATE(2, 4);
  const size_t max_drafts = vocab == 2 ? 6 : 4;
  CAPTURE(static_cast<int>(quality), vocab);
  std::mt19937_64 random(17);
  for (size_t k = 1; k <= max_drafts; ++k) {
    Tree main{vocab, {}}, draft{vocab, {}};
    Law expected = {1.0};
    for (size_t n = 0; n <= k; ++n) {
      main.levels.emplace_back();
      draft.levels.emplace_back();
      Law next;
      for (size_t prefix = 0; prefix < power(static_cast<size_t>(vocab), n); ++prefix) {
        Law p = random_law(vocab, random);
        if (quality == Quality::kDisjoint) p = half_of(p, 0);
        draft.levels[n].push_back(draft_law(p, quality, n, random));
        for (const double x : p) next.push_back(expected[prefix] * x);
        main.levels[n].push_back(p);
      }
      expected = next;
    }
    double mean_rejection = 0, mean_block = 0;
    const Law rejection = emitted_law(main, draft, k, rejection_rule, &mean_rejection);
    const Law block = emitted_law(main, draft, k, block_rule, &mean_block);
    double worst_rejection = 0, worst_block = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      worst_rejection = std::max(worst_rejection, std::abs(rejection[i] - expected[i]));
      worst_block = std::max(worst_block, std::abs(block[i] - expected[i]));
    }
    CAPTURE(k, mean_rejection, mean_block);
    CHECK(worst_rejection < 1e-12);
    CHECK(worst_block < 1e-12);
    CHECK(mean_block >= mean_rejection - 1e-12);
    if (quality == Quality::kEqual) CHECK(mean_block == Approx(static_cast<double>(k)));
    if (quality == Quality::kDisjoint) CHECK(mean_block == Approx(0).margin(1e-12));
  }
}

TEST_CASE("the enumeration sees a wrong rule", "[rules][proof]") {
  // Rejection that draws the token behind a rejection from p itself instead of norm((p - q)+).
  const auto wrong = [](const RoundInput& input) {
    RoundRule rule = rejection_rule(input);
    for (size_t i = 0; i < rule.next.size(); ++i) rule.next[i] = input.p[i];
    return rule;
  };
  std::mt19937_64 random(3);
  Tree main{3, {}}, draft{3, {}};
  Law expected = {1.0};
  for (size_t n = 0; n <= 1; ++n) {
    main.levels.emplace_back();
    draft.levels.emplace_back();
    Law next;
    for (size_t prefix = 0; prefix < power(3, n); ++prefix) {
      main.levels[n].push_back(random_law(3, random));
      draft.levels[n].push_back(random_law(3, random));
      for (const double x : main.levels[n].back()) next.push_back(expected[prefix] * x);
    }
    expected = next;
  }
  double mean = 0;
  const Law law = emitted_law(main, draft, 1, wrong, &mean);
  double worst = 0;
  for (size_t i = 0; i < law.size(); ++i) worst = std::max(worst, std::abs(law[i] - expected[i]));
  CHECK(worst > 1e-3);
}
