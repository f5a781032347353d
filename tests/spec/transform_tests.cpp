// The sampling transforms of the CPU backend against a plain double-precision reference.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "backend/backend.h"
#include "support/catch.h"
#include "support/host_round.h"

using namespace tandem;
using namespace tandem::test;

namespace {

/// A double-precision distribution, and whether rounding could change which ids it keeps.
struct Reference {
  std::vector<double> probs;
  bool close = false;
};

/// Ids by descending value, of equal ones the lower first.
std::vector<size_t> descending(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] > values[b]; });
  return order;
}

void normalise(std::vector<double>& weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& w : weights) w /= sum;
}

std::vector<double> penalised(const HostRound& round, std::vector<double> logits,
                              const SamplingTransform& t, int drafted) {
  for (size_t x = 0; x < logits.size(); ++x) {
    double count = round.output_counts[x];
    for (int i = 0; i < drafted; ++i) {
      count += round.drafts[static_cast<size_t>(i)] == static_cast<int32_t>(x) ? 1 : 0;
    }
    if (count > 0 || round.prompt_seen[x] != 0) {
      logits[x] =
          logits[x] > 0 ? logits[x] / t.repetition_penalty : logits[x] * t.repetition_penalty;
    }
    logits[x] -= (count > 0 ? t.presence_penalty : 0) + t.frequency_penalty * count;
  }
  return logits;
}

Reference reference(const HostRound& round, const float* row, size_t columns,
                    const SamplingTransform& t, int drafted, const std::vector<uint8_t>& allowed) {
  constexpr double kClose = 1e-5;
  const double nothing = -std::numeric_limits<double>::infinity();
  std::vector<double> logits(row, row + columns);
  logits.resize(static_cast<size_t>(round.vocab), nothing);
  if (t.has_penalties()) logits = penalised(round, logits, t, drafted);
  for (size_t x = 0; x < logits.size(); ++x) {
    if (!allowed.empty() && allowed[x] == 0) logits[x] = nothing;
    if (x >= columns) logits[x] = nothing;
  }
  Reference result;
  if (t.top_k > 0 && t.top_k < round.vocab) {
    const auto order = descending(logits);
    for (size_t i = static_cast<size_t>(t.top_k); i < order.size(); ++i) logits[order[i]] = nothing;
    // Penalties are rounded: nearly equal logits may change places. Equal ones may not.
    const double last = logits[order[static_cast<size_t>(t.top_k) - 1]];
    for (const double x : std::vector<double>(row, row + columns)) {
      if (t.has_penalties() && std::abs(x - last) < kClose) result.close = true;
    }
  }
  const double largest = *std::max_element(logits.begin(), logits.end());
  for (const double x : logits) result.probs.push_back(std::exp((x - largest) / t.temperature));
  normalise(result.probs);
  if (t.top_p < 1) {
    double cumulated = 0;
    for (const size_t x : descending(result.probs)) {
      const bool kept = cumulated < t.top_p;
      cumulated += result.probs[x];
      result.close |= std::abs(cumulated - t.top_p) < kClose;
      if (!kept) result.probs[x] = 0;
    }
    normalise(result.probs);
  }
  if (t.min_p > 0) {
    const double floor = t.min_p * *std::max_element(result.probs.begin(), result.probs.end());
    for (double& p : result.probs) {
      result.close |= std::abs(p - floor) < kClose * floor;
      if (p < floor) p = 0;
    }
    normalise(result.probs);
  }
  return result;
}

/// |difference| / p that float32 allows: the exponent's rounding (|x| <= 88 in units of epsilon,
/// for the logit's adjustment, the subtraction and the product), 2 ulp of exp, a sum of n / 16
/// terms per lane, and the last product.
double relative_tolerance(int vocab) {
  constexpr double kEpsilon = 1.1920929e-7;
  return kEpsilon * (3 * 88 + 2 + vocab / 16.0 + 8);
}

}  // namespace

TEST_CASE("distribution applies the transforms as a double-precision reference does",
          "[transform]") {
  const auto backend = make_backend(DeviceSpec{}, 2);
  const auto stream = backend->make_stream();
  const int vocab = GENERATE(5, 63, 64, 1000, 6144);
  const bool integers = GENERATE(false, true);  // integer logits make ties
  std::mt19937_64 random(static_cast<uint64_t>(vocab));
  std::normal_distribution<float> normal(0, 3);
  const auto pick = [&](auto... values) {
    const std::array choices = {values...};
    return choices[random() % choices.size()];
  };
  int compared = 0;
  constexpr int kRepeats = 60, kRows = 3, kPrefix = 1;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    HostRound round(kRows + kPrefix, vocab);
    SamplingTransform t;
    t.temperature = pick(1.0f, 0.3f, 0.8f, 2.0f);
    t.top_k = pick(0, 0, 1, 3, 50, vocab, vocab + 5);
    t.top_p = pick(1.0f, 1.0f, 0.1f, 0.5f, 0.9f, 0.999f);
    t.min_p = pick(0.0f, 0.0f, 0.05f, 0.4f, 1.0f);
    t.repetition_penalty = pick(1.0f, 1.0f, 1.3f, 0.7f);
    t.presence_penalty = pick(0.0f, 0.5f);
    t.frequency_penalty = pick(0.0f, 0.25f);
    for (auto& count : round.output_counts) count = random() % 8 == 0 ? pick(1, 2, 3) : 0;
    for (auto& seen : round.prompt_seen) seen = random() % 4 == 0;
    for (auto& d : round.drafts) d = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab));
    std::vector<uint8_t> allowed;
    if (random() % 3 == 0) {
      for (int x = 0; x < vocab; ++x) allowed.push_back(random() % 4 != 0);
      allowed[0] = 1;
    }
    // The logits of a draft may have fewer or more columns than the main vocabulary has ids.
    const int columns = vocab + pick(0, 0, -2, 3);
    std::vector<float> logits(static_cast<size_t>(kRows * columns));
    for (float& x : logits) x = integers ? std::round(normal(random)) : normal(random);
    std::vector<float> probs(static_cast<size_t>(kRows * vocab), -1.0f);
    const TensorView logits_view(logits.data(), DType::kF32, {kRows, columns}, DeviceId{});
    const TensorView probs_view(probs.data(), DType::kF32, {kRows, vocab}, DeviceId{});
    const uint8_t* mask = allowed.empty() ? nullptr : allowed.data();
    backend->distribution(round.view(), logits_view, t, kPrefix, mask, probs_view, *stream);
    for (int r = 0; r < kRows; ++r) {
      const Reference expected =
          reference(round, logits.data() + r * columns,
                    static_cast<size_t>(std::min(columns, vocab)), t, kPrefix + r, allowed);
      if (expected.close) continue;
      ++compared;
      double worst = 0;
      bool same_support = true;
      for (int x = 0; x < vocab; ++x) {
        const double p = expected.probs[static_cast<size_t>(x)];
        const double got = probs[static_cast<size_t>(r * vocab + x)];
        // Between 0 and this, exp may have underflowed before the sum made p larger.
        constexpr double kSmallest = 1e-34;
        same_support &= p == 0 ? got == 0 : got > 0 || p < kSmallest;
        if (p >= kSmallest) worst = std::max(worst, std::abs(got - p) / p);
      }
      CAPTURE(repeat, r, columns, t.temperature, t.top_k, t.top_p, t.min_p, allowed.size());
      REQUIRE(same_support);
      REQUIRE(worst < relative_tolerance(vocab));
    }
  }
  CHECK(compared > kRepeats * kRows / 3);
}

TEST_CASE("argmax takes the smallest id of the largest logits after penalties", "[transform]") {
  const auto backend = make_backend(DeviceSpec{}, 2);
  const auto stream = backend->make_stream();
  const int vocab = GENERATE(5, 64, 513, 1030, 6144);
  std::mt19937_64 random(static_cast<uint64_t>(vocab));
  std::normal_distribution<float> normal(0, 2);
  for (int repeat = 0; repeat < 200; ++repeat) {
    constexpr int kRows = 4;
    HostRound round(kRows, vocab);
    for (auto& count : round.output_counts) count = static_cast<int32_t>(random() % 3);
    for (auto& d : round.drafts) d = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab));
    SamplingTransform t;
    t.temperature = 0;
    if (repeat % 2 == 1) {
      t.repetition_penalty = 2;  // powers of two: exact in float32, so ties stay ties
      t.presence_penalty = 0.5f;
      t.frequency_penalty = 0.25f;
    }
    std::vector<uint8_t> allowed;
    if (random() % 2 == 0) {
      for (int x = 0; x < vocab; ++x) allowed.push_back(random() % 4 != 0);
      allowed[static_cast<size_t>(vocab) - 1] = 1;
    }
    const int columns = vocab + static_cast<int>(random() % 3) - 1;
    std::vector<float> logits(static_cast<size_t>(kRows * columns));
    for (float& x : logits) x = std::round(normal(random));
    int32_t ids[kRows];
    backend->argmax(round.view(),
                    TensorView(logits.data(), DType::kF32, {kRows, columns}, DeviceId{}), t, 0,
                    allowed.empty() ? nullptr : allowed.data(), ids, *stream);
    for (int r = 0; r < kRows; ++r) {
      const auto n = static_cast<size_t>(std::min(columns, vocab));
      std::vector<double> row(logits.begin() + r * columns,
                              logits.begin() + r * columns + static_cast<ptrdiff_t>(n));
      row = penalised(round, row, t, r);
      for (size_t x = 0; x < n; ++x) {
        if (!allowed.empty() && allowed[x] == 0) row[x] = -1e30;
      }
      REQUIRE(ids[r] == std::max_element(row.begin(), row.end()) - row.begin());
    }
  }
}

TEST_CASE("a temperature near 0 leaves the largest logit alone", "[transform]") {
  const auto backend = make_backend(DeviceSpec{}, 1);
  const auto stream = backend->make_stream();
  HostRound round(0, 3);
  SamplingTransform t;
  t.temperature = GENERATE(1e-3f, 1e-38f, 1e-45f);
  std::vector<float> logits = {1.0f, 3.0f, 2.0f}, probs(3);
  backend->distribution(round.view(), TensorView(logits.data(), DType::kF32, {1, 3}, DeviceId{}), t,
                        0, nullptr, TensorView(probs.data(), DType::kF32, {1, 3}, DeviceId{}),
                        *stream);
  CHECK(probs == std::vector<float>{0.0f, 1.0f, 0.0f});
}

TEST_CASE("a row has the same distribution whatever rows travel with it", "[transform]") {
  const auto backend = make_backend(DeviceSpec{}, 2);
  const auto stream = backend->make_stream();
  constexpr int kVocab = 6144, kRows = 16;
  std::mt19937_64 random(9);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(kRows * kVocab), together(kRows * kVocab), alone(kVocab);
  for (float& x : logits) x = normal(random);
  HostRound round(kRows, kVocab);
  SamplingTransform t;
  t.top_k = GENERATE(0, 50);
  t.top_p = GENERATE(1.0f, 0.9f);
  backend->distribution(
      round.view(), TensorView(logits.data(), DType::kF32, {kRows, kVocab}, DeviceId{}), t, 0,
      nullptr, TensorView(together.data(), DType::kF32, {kRows, kVocab}, DeviceId{}), *stream);
  for (int r = 0; r < kRows; ++r) {
    backend->distribution(
        round.view(), TensorView(logits.data() + r * kVocab, DType::kF32, {1, kVocab}, DeviceId{}),
        t, r, nullptr, TensorView(alone.data(), DType::kF32, {1, kVocab}, DeviceId{}), *stream);
    REQUIRE(std::equal(alone.begin(), alone.end(), together.begin() + r * kVocab));
  }
}

TEST_CASE("log_probabilities ranks raw logits, of equal ones the lower id first", "[transform]") {
  const auto backend = make_backend(DeviceSpec{}, 2);
  const auto stream = backend->make_stream();
  const int vocab = GENERATE(5, 6144);
  std::mt19937_64 random(static_cast<uint64_t>(vocab));
  std::normal_distribution<float> normal(0, 4);
  constexpr int kRows = 3, kTop = 5;
  std::vector<float> logits(static_cast<size_t>(kRows * vocab));
  for (float& x : logits) x = std::round(normal(random));
  const std::vector<int32_t> ids = {0, 4, 2};
  std::vector<int32_t> top_ids(kRows * kTop);
  std::vector<float> logprobs(kRows), top_logprobs(kRows * kTop), logsumexp(kRows);
  backend->log_probabilities(TensorView(logits.data(), DType::kF32, {kRows, vocab}, DeviceId{}),
                             ids.data(), kTop, logprobs.data(), top_ids.data(), top_logprobs.data(),
                             logsumexp.data(), *stream);
  for (int r = 0; r < kRows; ++r) {
    const std::vector<double> row(logits.begin() + r * vocab, logits.begin() + (r + 1) * vocab);
    double sum = 0;
    for (const double x : row) sum += std::exp(x);
    const double log_sum = std::log(sum);
    // Relative errors of the sum become absolute ones of its logarithm; then results are rounded.
    const double tolerance = 1.2e-7 * (2 * 88 + 2 + vocab / 16.0 + 3 * std::abs(log_sum) + 40);
    CHECK(logsumexp[static_cast<size_t>(r)] == Approx(log_sum).margin(tolerance));
    CHECK(
        logprobs[static_cast<size_t>(r)] ==
        Approx(row[static_cast<size_t>(ids[static_cast<size_t>(r)])] - log_sum).margin(tolerance));
    const auto order = descending(row);
    for (size_t i = 0; i < kTop; ++i) {
      const size_t at = static_cast<size_t>(r) * kTop + i;
      CHECK(top_ids[at] == static_cast<int32_t>(order[i]));
      CHECK(top_logprobs[at] == Approx(row[order[i]] - log_sum).margin(tolerance));
    }
  }
}
