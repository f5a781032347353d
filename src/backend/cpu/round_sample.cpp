#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/round_math.h"

namespace tandem {
namespace {

constexpr int kNumbersPerCounter = 4;
static_assert(round::kBlock == kNumbersPerCounter * kLanes);

/// The smallest id with the largest log p + Gumbel noise; token t has number t % 4 of token block
/// t / 4.
///
/// A token beats the best score s so far only if its exponential E = -log1p(-u) is below p e^-s,
/// and E >= u: so most tokens are ruled out by comparing their uniform, without a logarithm.
int32_t gumbel_winner(const float* probs, int64_t n, const PhiloxCounter& counter, uint64_t key,
                      const CpuKernels& kernels) {
  constexpr float kSlack = 1.001f;  // more than the rounding of scores up to 110 and of exp
  constexpr int kDroppedBits = 8;   // so that the rest is exact in float32, and not above u
  constexpr float kToUniform = 0x1p-24f;
  uint32_t words[round::kBlock], bits[round::kBlock];
  float best = -std::numeric_limits<float>::infinity();
  float bound = std::numeric_limits<float>::infinity();
  int64_t winner = 0;
  for (int64_t first = 0; first < n; first += round::kBlock) {
    const int count = static_cast<int>(std::min(round::kBlock, n - first));
    const float* p = probs + first;
    int possible = 0;
    for (int i = 0; i < count; ++i) possible |= static_cast<int>(p[i] > 0);
    if (possible == 0) continue;
    kernels.philox_blocks(counter.data(), key, static_cast<uint32_t>(first / kNumbersPerCounter),
                          words);
    for (int i = 0; i < kLanes; ++i) {
      for (int j = 0; j < kNumbersPerCounter; ++j) {
        bits[kNumbersPerCounter * i + j] = words[kLanes * j + i];
      }
    }
    const auto may_win = [&](int i) {
      return static_cast<float>(static_cast<int32_t>(bits[i] >> kDroppedBits)) * kToUniform <=
             p[i] * bound;
    };
    int candidates = 0;
    for (int i = 0; i < count; ++i) candidates |= static_cast<int>(may_win(i));
    if (candidates == 0) continue;
    for (int i = 0; i < count; ++i) {
      if (!(p[i] > 0) || !may_win(i)) continue;
      const float score = std::log(p[i]) + gumbel_noise(bits[i]);
      if (!(score > best)) continue;
      best = score;
      bound = std::exp(-score) * kSlack;
      winner = first + i;
    }
  }
  return static_cast<int32_t>(winner);
}

}  // namespace

void CpuBackend::sample(const RoundView& round, TensorView probs, int first, RandomPurpose purpose,
                        int32_t* ids, Stream&) {
  round::require_matrix(round, probs, "sample: probs");
  const int64_t rows = probs.dim(0), n = probs.dim(1);
  pool_.for_each(rows, rows * n >= round::kParallelElements, [&](int64_t r) {
    const auto [s, i] = round::row_of(r, rows, round.sequences);
    const float* p = probs.as<float>() + r * n;
    const auto weight = [p](int64_t id) { return static_cast<double>(p[id]); };
    const double u = round::round_uniform(round, s, round.length[s] + first + i, purpose);
    ids[r] = std::max(round::draw(weight, n, round::weight_sum(weight, n), u), 0);
  });
}

void CpuBackend::gumbel_argmax(const RoundView& round, TensorView probs, int first, int32_t* ids,
                               Stream&) {
  round::require_matrix(round, probs, "gumbel_argmax: probs");
  const int64_t rows = probs.dim(0), n = probs.dim(1);
  constexpr int kRoundBase = 0;  // the same noise whatever round reaches the position
  pool_.for_each(rows, rows * n >= round::kParallelElements, [&](int64_t r) {
    const auto [s, i] = round::row_of(r, rows, round.sequences);
    const PhiloxCounter counter = random_counter(round.length[s] + first + i, kRoundBase, 0,
                                                 RandomPurpose::kGumbel, round.streams[s]);
    ids[r] = gumbel_winner(probs.as<float>() + r * n, n, counter, round.seeds[s], kernels_);
  });
}

}  // namespace tandem
