// The promises of speculative decoding on the bundled pair of real models: texts that do not depend
// on the drafter, and token counts that follow the main model's law.

#include <algorithm>
#include <numeric>
#include <utility>

#include "demo_pair.h"
#include "support/catch.h"
#include "support/chi_square.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Kind = DecodeRule::Kind;

constexpr int kMostDrafts = 8;
constexpr double kSignificance = 1e-6;

#ifdef TANDEM_SANITIZED
constexpr int kGreedyTokens = 12, kCoupledTokens = 6;
constexpr size_t kSampledPrompt = 1;
constexpr uint64_t kSamples = 25;
constexpr int64_t kLeastTokens = 200;
#else
constexpr int kGreedyTokens = 400, kCoupledTokens = 200;
constexpr size_t kSampledPrompt = 2;
constexpr uint64_t kSamples = 2100;
constexpr int64_t kLeastTokens = 20000;
#endif

/// counts[position][token] over texts with seeds first_seed, first_seed + 1, ….
using Counts = std::vector<std::vector<int64_t>>;
Counts count_tokens(DemoPair& pair, const Tokens& prompt, DecodeSettings settings, int tokens,
                    uint64_t first_seed) {
  Counts counts(static_cast<size_t>(tokens),
                std::vector<int64_t>(static_cast<size_t>(pair.vocab_size())));
  for (uint64_t i = 0; i < kSamples; ++i) {
    settings.seed = first_seed + i;
    const Tokens text = pair.generate(prompt, settings, tokens);
    for (size_t t = 0; t < text.size(); ++t) ++counts[t][static_cast<size_t>(text[t])];
  }
  return counts;
}

/// Likely tokens have cells of their own, rare ones share some.
ChiSquare compare(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  std::vector<size_t> order(a.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t x, size_t y) { return a[x] + b[x] > a[y] + b[y]; });
  std::vector<int64_t> first, second;
  for (const size_t x : order) {
    first.push_back(a[x]);
    second.push_back(b[x]);
  }
  return same_law(first, second);
}

}  // namespace

TEST_CASE("greedy texts of the pair are the main model's, for every K and n-gram", "[demo_pair]") {
  CHECK(check_same_texts({}, Kind::kGreedy, 0, kGreedyTokens, kMostDrafts) >= kLeastTokens);
}

TEST_CASE("coupled texts of the pair are the main model's, whatever the drafter", "[demo_pair]") {
  CHECK(check_same_texts({}, Kind::kCoupled, 0.8f, kCoupledTokens, kMostDrafts) +
            check_same_texts({}, Kind::kCoupled, 1.0f, kCoupledTokens, kMostDrafts) >=
        kLeastTokens);
}

TEST_CASE("sampled texts of the pair follow the main model's law", "[demo_pair]") {
  constexpr int kTokens = 8, kDrafts = 3;
  constexpr float kTemperature = 1;
  // Seeds that no two of the samples share.
  constexpr uint64_t kPlainSeeds = 0, kRejectionSeeds = 1u << 20, kBlockSeeds = 2u << 20;
  constexpr uint64_t kCoolSeeds = 3u << 20;
  const Tokens prompt = demo_prompts()[kSampledPrompt];
  DemoPair plain(PairDrafter::kNone), model(PairDrafter::kModel);
  const Counts expected = count_tokens(plain, prompt, demo_settings(Kind::kBlock, 0, kTemperature),
                                       kTokens, kPlainSeeds);
  for (const auto& [kind, seeds] :
       {std::pair{Kind::kRejection, kRejectionSeeds}, std::pair{Kind::kBlock, kBlockSeeds}}) {
    const Counts counts =
        count_tokens(model, prompt, demo_settings(kind, kDrafts, kTemperature), kTokens, seeds);
    for (size_t t = 0; t < kTokens; ++t) {
      const ChiSquare test = compare(expected[t], counts[t]);
      CAPTURE(static_cast<int>(kind), t, test.statistic, test.dof);
      CHECK(test.p_value > kSignificance);
    }
  }
  CHECK(model.acceptance_rate() > 0.1);

  // The same comparison sees a law that is not the same: a cooler one.
  constexpr float kCooler = 0.8f;
  const Counts cool =
      count_tokens(plain, prompt, demo_settings(Kind::kBlock, 0, kCooler), kTokens, kCoolSeeds);
  double least = 1;
  for (size_t t = 0; t < kTokens; ++t) {
    least = std::min(least, compare(expected[t], cool[t]).p_value);
  }
#ifndef TANDEM_SANITIZED  // with so few draws it may not
  CHECK(least < kSignificance);
#endif
}
