// The ops of a round on the CPU against the rules in double precision, with the same random
// numbers: same decisions, same tokens.

#include <algorithm>
#include <cmath>
#include <random>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "reference_rules.h"
#include "support/catch.h"
#include "support/chi_square.h"
#include "support/host_round.h"
#include "tandem/error.h"

using namespace tandem;
using namespace tandem::test;

namespace {

std::unique_ptr<Backend> cpu() { return make_backend(DeviceSpec{}, 1); }

enum class Kind { kDense, kPeaked, kHalfZero, kOneHot };

void random_row(float* row, int vocab, Kind kind, std::mt19937_64& random) {
  std::exponential_distribution<double> exponential(1);
  std::vector<double> law(static_cast<size_t>(vocab));
  double sum = 0;
  for (double& p : law) {
    p = kind == Kind::kPeaked ? std::pow(exponential(random), 6) : exponential(random);
    if (kind == Kind::kHalfZero && random() % 2 == 0) p = 0;
    if (kind == Kind::kOneHot) p = 0;
  }
  law[random() % law.size()] += 1e-3;
  for (const double p : law) sum += p;
  for (size_t x = 0; x < law.size(); ++x) row[x] = static_cast<float>(law[x] / sum);
}

double uniform(const HostRound& round, int i, RandomPurpose purpose) {
  const auto counter = random_counter(round.length + 1 + i, round.length, 0, purpose, round.stream);
  const auto words = philox4x32(counter, round.seed);
  return uniform_open(words[0], words[1]);
}

/// What the rule decides with the round's own random numbers. `close` is set when a comparison is
/// nearer than rounding in double precision could decide.
std::vector<int32_t> decide(const RoundInput& input, AcceptRule kind, const HostRound& round,
                            bool& close) {
  constexpr double kClose = 1e-12;
  const int k = static_cast<int>(input.drafts.size());
  const RoundRule rule = kind == AcceptRule::kBlock ? block_rule(input) : rejection_rule(input);
  const auto stands = [&](int i) {
    const double u = uniform(round, i, RandomPurpose::kAccept);
    const double threshold = rule.thresholds[static_cast<size_t>(i)];
    // Only rounding can make a threshold just below 1, as for p = q.
    close |= std::abs(u - threshold) < kClose;
    return u < threshold;
  };
  int tau = 0;
  if (kind == AcceptRule::kRejection) {
    while (tau < k && stands(tau)) ++tau;
  } else {
    tau = k;
    while (tau > 0 && !stands(tau - 1)) --tau;
  }
  std::vector<int32_t> tokens(input.drafts.begin(), input.drafts.begin() + tau);
  const auto& next = rule.next[static_cast<size_t>(tau)];
  const double u = uniform(round, tau, RandomPurpose::kResidual);
  double cumulated = 0;
  for (size_t x = 0; x < next.size(); ++x) {
    cumulated += next[x];
    close |= std::abs(cumulated - u) < kClose;
    if (cumulated > u) {
      tokens.push_back(static_cast<int32_t>(x));
      return tokens;
    }
  }
  close = true;
  tokens.push_back(-1);
  return tokens;
}

}  // namespace

TEST_CASE("accept decides as the rules in double precision do", "[accept]") {
  const auto backend = cpu();
  const auto stream = backend->make_stream();
  const auto kind = GENERATE(AcceptRule::kRejection, AcceptRule::kBlock);
  const bool certain = GENERATE(false, true);
  const int vocab = GENERATE(2, 5, 64, 67, 300);
  CAPTURE(static_cast<int>(kind), certain, vocab);
  std::mt19937_64 random(static_cast<uint64_t>(vocab));
  constexpr int kMaxDrafts = 5;
  int compared = 0, longest = 0;
  for (int repeat = 0; repeat < 600; ++repeat) {
    HostRound round(kMaxDrafts, vocab);
    round.seed = random();
    round.length = static_cast<int32_t>(random() % 50);
    const int k = 1 + static_cast<int>(random() % kMaxDrafts);
    RoundView view = round.view();
    if (certain) view.draft_probs = nullptr;
    RoundInput input;
    const bool good_draft = random() % 4 == 0;
    for (int i = 0; i <= k; ++i) {
      float* p = round.main_probs.data() + i * vocab;
      random_row(p, vocab, static_cast<Kind>(random() % 4), random);
      input.p.emplace_back(p, p + vocab);
      if (i == k) break;
      float* q = round.draft_probs.data() + i * vocab;
      const bool equal = good_draft || random() % 3 == 0;
      if (equal) {
        std::copy_n(p, vocab, q);
      } else {
        random_row(q, vocab, static_cast<Kind>(random() % 4), random);
      }
      int32_t drafted = 0;
      do {
        drafted = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab));
      } while (q[drafted] == 0);
      if (good_draft || (certain && random() % 2 == 0)) {  // a blind guess would hardly stand
        drafted = static_cast<int32_t>(std::max_element(p, p + vocab) - p);
      }
      round.drafts[static_cast<size_t>(i)] = drafted;
      input.drafts.push_back(drafted);
      input.q.emplace_back(q, q + vocab);
      if (certain) {
        input.q.back().assign(static_cast<size_t>(vocab), 0.0);
        input.q.back()[static_cast<size_t>(drafted)] = 1;
      }
    }
    bool close = false;
    const auto expected = decide(input, kind, round, close);
    backend->accept(view, kind, k, *stream);
    if (close) continue;
    ++compared;
    REQUIRE(round.count == static_cast<int32_t>(expected.size()));
    longest = std::max(longest, round.count);
    for (size_t i = 0; i < expected.size(); ++i) REQUIRE(round.output[i] == expected[i]);
  }
  CHECK(compared > 550);
  CHECK(longest >= kMaxDrafts);
}

TEST_CASE("expected_acceptance is what main and draft distribution have in common", "[accept]") {
  const auto backend = cpu();
  const auto stream = backend->make_stream();
  const bool certain = GENERATE(false, true);
  const int vocab = GENERATE(2, 67, 300);
  CAPTURE(certain, vocab);
  std::mt19937_64 random(static_cast<uint64_t>(vocab));
  constexpr int kMaxDrafts = 5, kDrafted = 4;
  constexpr float kUntouched = -1;
  HostRound round(kMaxDrafts, vocab);
  RoundView view = round.view();
  if (certain) view.draft_probs = nullptr;
  for (int i = 0; i < kMaxDrafts; ++i) {
    random_row(round.main_probs.data() + i * vocab, vocab, static_cast<Kind>(i % 4), random);
    random_row(round.draft_probs.data() + i * vocab, vocab, Kind::kDense, random);
    round.drafts[static_cast<size_t>(i)] =
        static_cast<int32_t>(random() % static_cast<uint64_t>(vocab));
  }
  std::vector<float> measured(kMaxDrafts, kUntouched);
  backend->expected_acceptance(view, kDrafted, measured.data(), *stream);
  for (int i = 0; i < kDrafted; ++i) {
    double expected = 0;
    for (int x = 0; x < vocab; ++x) {
      const auto at = static_cast<size_t>(i * vocab + x);
      const double p = static_cast<double>(round.main_probs[at]);
      const double one_hot = x == round.drafts[static_cast<size_t>(i)] ? 1 : 0;
      expected += std::min(p, certain ? one_hot : static_cast<double>(round.draft_probs[at]));
    }
    CHECK(static_cast<double>(measured[static_cast<size_t>(i)]) == Approx(expected).epsilon(1e-6));
  }
  CHECK(measured[kDrafted] == kUntouched);
  CHECK_THROWS_AS(backend->expected_acceptance(view, kMaxDrafts + 1, measured.data(), *stream),
                  ShapeError);
}

TEST_CASE("accept of tokens that must be equal", "[accept]") {
  const auto backend = cpu();
  const auto stream = backend->make_stream();
  HostRound round(4, 8);
  round.drafts = {3, 1, 4, 1};
  const auto accept = [&](std::vector<int32_t> main_tokens, int k) {
    round.main_tokens = std::move(main_tokens);
    backend->accept(round.view(), AcceptRule::kExact, k, *stream);
    return std::vector<int32_t>(round.output.begin(), round.output.begin() + round.count);
  };
  CHECK(accept({3, 1, 4, 1, 5}, 4) == std::vector<int32_t>{3, 1, 4, 1, 5});
  CHECK(accept({3, 1, 5, 1, 5}, 4) == std::vector<int32_t>{3, 1, 5});
  CHECK(accept({2, 1, 4, 1, 5}, 4) == std::vector<int32_t>{2});
  CHECK(accept({3, 1, 4, 1, 5}, 2) == std::vector<int32_t>{3, 1, 4});
  CHECK(accept({7, 1, 4, 1, 5}, 0) == std::vector<int32_t>{7});
  CHECK_THROWS_AS(backend->accept(round.view(), AcceptRule::kExact, 5, *stream), ShapeError);
}

TEST_CASE("a draft that is the main model is always accepted", "[accept]") {
  const auto backend = cpu();
  const auto stream = backend->make_stream();
  std::mt19937_64 random(5);
  const auto rule = GENERATE(AcceptRule::kRejection, AcceptRule::kBlock);
  for (uint64_t seed = 0; seed < 500; ++seed) {
    HostRound round(3, 33);
    round.seed = seed;
    for (int i = 0; i <= 3; ++i) {
      float* p = round.main_probs.data() + i * 33;
      random_row(p, 33, Kind::kPeaked, random);
      if (i == 3) break;
      std::copy_n(p, 33, round.draft_probs.data() + i * 33);
      round.drafts[static_cast<size_t>(i)] = static_cast<int32_t>(std::max_element(p, p + 33) - p);
    }
    backend->accept(round.view(), rule, 3, *stream);
    REQUIRE(round.count == 4);
  }
}

TEST_CASE("sample draws by inverse transform, gumbel_argmax by the noise of each token",
          "[sample]") {
  const auto backend = cpu();
  const auto stream = backend->make_stream();
  const int vocab = GENERATE(3, 64, 130, 1000);
  std::mt19937_64 random(static_cast<uint64_t>(vocab));
  for (int repeat = 0; repeat < 200; ++repeat) {
    HostRound round(1, vocab);
    round.seed = random();
    round.length = static_cast<int32_t>(random() % 1000);
    round.stream = static_cast<int32_t>(random() % 3);
    constexpr int kRows = 2, kFirst = 1;
    std::vector<float> probs(static_cast<size_t>(kRows * vocab));
    for (int r = 0; r < kRows; ++r) {
      random_row(probs.data() + r * vocab, vocab, static_cast<Kind>(random() % 4), random);
    }
    const TensorView view(probs.data(), DType::kF32, {kRows, vocab}, DeviceId{});
    int32_t sampled[kRows], coupled[kRows];
    backend->sample(round.view(), view, kFirst, RandomPurpose::kDraft, sampled, *stream);
    backend->gumbel_argmax(round.view(), view, kFirst, coupled, *stream);
    for (int r = 0; r < kRows; ++r) {
      const float* p = probs.data() + r * vocab;
      const int position = round.length + kFirst + r;
      double total = 0, cumulated = 0;
      for (int x = 0; x < vocab; ++x) total += static_cast<double>(p[x]);
      const double u = uniform(round, kFirst - 1 + r, RandomPurpose::kDraft) * total;
      int inverse = 0;
      bool close = false;
      for (int x = vocab - 1; x >= 0; --x) {
        cumulated = 0;
        for (int y = 0; y <= x; ++y) cumulated += static_cast<double>(p[y]);
        close |= std::abs(cumulated - u) < 1e-12;
        if (cumulated > u && p[x] > 0) inverse = x;
      }
      if (!close) REQUIRE(sampled[r] == inverse);
      int winner = -1;
      float best = 0;
      for (int x = 0; x < vocab; ++x) {
        if (p[x] == 0) continue;
        const auto bits = philox4x32(random_counter(position, 0, static_cast<uint32_t>(x / 4),
                                                    RandomPurpose::kGumbel, round.stream),
                                     round.seed)[static_cast<size_t>(x % 4)];
        const float score = std::log(p[x]) + gumbel_noise(bits);
        if (winner >= 0 && !(score > best)) continue;
        best = score;
        winner = x;
      }
      REQUIRE(coupled[r] == winner);
    }
  }
}

TEST_CASE("every instruction set gives Philox's numbers", "[sample]") {
  const auto isa = GENERATE(CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512);
  if (!has_isa(isa)) return;
  std::mt19937_64 random(1);
  for (int repeat = 0; repeat < 100; ++repeat) {
    const PhiloxCounter counter = {static_cast<uint32_t>(random()), static_cast<uint32_t>(random()),
                                   0, static_cast<uint32_t>(random())};
    const uint64_t key = random();
    const auto first = static_cast<uint32_t>(random() % 100000);
    uint32_t words[4 * kLanes];
    cpu_kernels(isa).philox_blocks(counter.data(), key, first, words);
    for (uint32_t i = 0; i < kLanes; ++i) {
      const auto expected = philox4x32({counter[0], counter[1], first + i, counter[3]}, key);
      for (uint32_t j = 0; j < 4; ++j) REQUIRE(words[kLanes * j + i] == expected[j]);
    }
  }
}

TEST_CASE("both ways of drawing follow the distribution", "[sample]") {
  const auto backend = cpu();
  const auto stream = backend->make_stream();
  constexpr int kVocab = 6;
#ifdef TANDEM_SANITIZED
  constexpr uint64_t kDraws = 20000;
#else
  constexpr uint64_t kDraws = 200000;
#endif
  constexpr double kSignificance = 1e-6;
  std::vector<float> probs = {0.4f, 0.3f, 0.0f, 0.2f, 0.0999f, 0.0001f};
  const std::vector<double> law(probs.begin(), probs.end());
  const TensorView view(probs.data(), DType::kF32, {1, kVocab}, DeviceId{});
  std::vector<int64_t> sampled(kVocab), coupled(kVocab);
  HostRound round(1, kVocab);
  for (round.seed = 0; round.seed < kDraws; ++round.seed) {
    int32_t id = -1;
    backend->sample(round.view(), view, 1, RandomPurpose::kDraft, &id, *stream);
    ++sampled[static_cast<size_t>(id)];
    backend->gumbel_argmax(round.view(), view, 1, &id, *stream);
    ++coupled[static_cast<size_t>(id)];
  }
  CHECK(goodness_of_fit(sampled, law).p_value > kSignificance);
  CHECK(goodness_of_fit(coupled, law).p_value > kSignificance);
}

TEST_CASE("round_rows and commit move a round through its buffers", "[round]") {
  const auto backend = cpu();
  const auto stream = backend->make_stream();
  HostRound round(3, 50);
  std::vector<int32_t> fields(4 * 8);
  Rows rows;
  const auto view = [&](int field) {
    return TensorView(fields.data() + field * 8, DType::kI32, {8}, DeviceId{});
  };
  rows = Rows{3, view(0), view(1), view(2), view(3)};
  round.length = 5;
  round.history = {10, 11, 12, 13, 14, 15};
  round.history.resize(64);
  round.drafts = {20, 21, 22};
  const auto tokens = [&] { return std::vector<int32_t>(fields.begin(), fields.begin() + 3); };
  const auto slots = [&] { return std::vector<int32_t>(fields.begin() + 16, fields.begin() + 19); };

  backend->round_rows(round.view(), 0, 7, rows, *stream);
  CHECK(tokens() == std::vector<int32_t>{15, 20, 21});
  CHECK(slots() == std::vector<int32_t>{5, 6, 7});
  CHECK(fields[24] == 7);
  backend->round_rows(round.view(), -1, 0, rows, *stream);
  CHECK(tokens() == std::vector<int32_t>{14, 15, 20});
  backend->round_rows(round.view(), -3, 0, rows, *stream);
  CHECK(tokens() == std::vector<int32_t>{12, 13, 14});
  round.length = 0;
  backend->round_rows(round.view(), -1, 0, rows, *stream);
  CHECK(tokens() == std::vector<int32_t>{10, 10, 20});
  CHECK(slots() == std::vector<int32_t>{0, 0, 1});

  round.length = 5;
  round.output = {20, 20, 33, 0};
  round.count = 3;
  backend->commit(round.view(), *stream);
  CHECK(round.length == 8);
  CHECK(std::vector<int32_t>(round.history.begin() + 5, round.history.begin() + 9) ==
        std::vector<int32_t>{15, 20, 20, 33});
  CHECK(round.output_counts[20] == 2);
  CHECK(round.output_counts[33] == 1);
  CHECK(round.output_counts[0] == 0);
}
