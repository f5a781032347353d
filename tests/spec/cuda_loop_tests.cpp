// The promises of the decoding loop on a GPU: texts that no drafter changes, and rounds in which
// the host waits once and the driver allocates nothing.

#include <cmath>

#include "demo_pair.h"
#include "driver_calls.h"
#include "ops/op_runner.h"
#include "support/catch.h"
#include "tandem/speedup.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Kind = DecodeRule::Kind;
constexpr int kMostDrafts = DemoPair::kMaxDrafts, kTokens = 1400;
constexpr int64_t kLeastTokens = 100000;

}  // namespace

TEST_CASE("CUDA: greedy texts are the same with any draft", "[cuda]") {
  if (!has_gpu()) return;
  CHECK(check_same_texts(cuda_device(), Kind::kGreedy, 0, kTokens, kMostDrafts) >= kLeastTokens);
}

TEST_CASE("CUDA: coupled texts are the same with any draft", "[cuda]") {
  if (!has_gpu()) return;
  CHECK(check_same_texts(cuda_device(), Kind::kCoupled, 0.8f, kTokens, kMostDrafts) >=
        kLeastTokens);
}

TEST_CASE("CUDA: texts are the same with and without launching ahead", "[cuda]") {
  if (!has_gpu()) return;
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  DemoPair pair(PairDrafter::kModel, cuda_device());
  const Tokens prompt = demo_prompts()[1];
  for (const int k : {0, 1, 4, 9}) {
    for (uint64_t seed = 0; seed < 5; ++seed) {
      DecodeSettings settings = demo_settings(kind, k, 0.9f, seed);
      settings.launch_ahead = false;
      const Tokens expected = pair.generate(prompt, settings, 150);
      settings.launch_ahead = true;
      CAPTURE(static_cast<int>(kind), k, seed);
      REQUIRE(pair.generate(prompt, settings, 150) == expected);
    }
  }
}

TEST_CASE("CUDA: made-up acceptance is met within 1 % over 2,000 rounds", "[cuda]") {
  if (!has_gpu()) return;
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  DemoPair pair(PairDrafter::kModel, cuda_device());
  const Tokens prompt = demo_prompts()[1];
  for (const double length : {1.5, 3.35}) {
    int64_t rounds = 0, accepted = 0;
    for (uint64_t seed = 0; rounds < 2000; ++seed) {
      DecodeSettings settings = demo_settings(kind, 4, 0.9f, seed);
      settings.synthetic_acceptance_rates = acceptance_rates_of_length(length);
      pair.decoder().start(prompt, settings);
      for (int done = 0; done < 250; ++done, ++rounds) {
        accepted += pair.decoder().round(1 << 20).num_accepted;
      }
    }
    const double mean = 1 + static_cast<double>(accepted) / static_cast<double>(rounds);
    CAPTURE(static_cast<int>(kind), length, mean);
    CHECK(std::abs(mean - length) <= 0.01 * length);
  }
}

TEST_CASE("CUDA: a round allocates nothing and waits once", "[cuda]") {
  if (!has_gpu()) return;
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  const auto drafter = GENERATE(PairDrafter::kNone, PairDrafter::kModel, PairDrafter::kNgram);
  DemoPair pair(drafter, cuda_device());
  const Tokens prompt = demo_prompts()[0];
  DecodeSettings settings = demo_settings(kind, 4, 0.9f, 3);
  if (GENERATE(false, true)) settings.synthetic_acceptance_rates = {0.9, 0.5};
  // The first rounds under a rule are captured; their memory is a request's, not a round's.
  pair.generate(prompt, settings, 100);
  pair.decoder().restart(settings);
  for (int done = 0; done < 100; ++done) {
    const DriverCalls before = driver_calls();
    pair.decoder().round(1 << 20);
    const DriverCalls now = driver_calls();
    CAPTURE(static_cast<int>(kind), static_cast<int>(drafter), done);
    REQUIRE(now.allocations == before.allocations);
    REQUIRE(now.other_waits == before.other_waits);
    REQUIRE(now.event_waits == before.event_waits + 1);
    REQUIRE(now.graph_launches > before.graph_launches);
  }
  const DriverCalls before = driver_calls();
  pair.decoder().start(prompt, settings);
  CHECK(driver_calls().other_waits > before.other_waits);
  CHECK(before.allocations > 0);
}
