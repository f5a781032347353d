#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/round_math.h"

namespace tandem {
namespace {

constexpr int kNumbersPerBlock = 4;                          ///< of a Philox counter
constexpr int kCounters = round::kBlock / kNumbersPerBlock;  ///< worked on side by side

/// Random bits of tokens [first, first + kBlock), as philox4x32 gives them for the token blocks
/// first / 4 …; the counters run side by side so that the compiler can use vectors.
void gumbel_bits(const PhiloxCounter& counter, uint64_t key, int64_t first, uint32_t* bits) {
  PhiloxCounter counters[kCounters];
  for (int i = 0; i < kCounters; ++i) {
    counters[i] = counter;
    counters[i][2] = static_cast<uint32_t>(first / kNumbersPerBlock + i);
    counters[i] = philox4x32(counters[i], key);
  }
  for (int i = 0; i < round::kBlock; ++i)
    bits[i] = counters[i / kNumbersPerBlock][i % kNumbersPerBlock];
}

/// The smallest id with the largest log p + Gumbel noise.
///
/// A token beats the best score s so far only if its exponential E = -log1p(-u) is below p e^-s,
/// and E >= u: so most tokens are ruled out by comparing their uniform, without a logarithm.
int32_t gumbel_winner(const float* probs, int64_t n, const PhiloxCounter& counter, uint64_t key) {
  constexpr float kSlack = 1.001f;  // more than the rounding of scores up to 110 and of exp
  constexpr float kBitsToUniform = 0x1p-32f;
  uint32_t bits[round::kBlock];
  float best = -std::numeric_limits<float>::infinity();
  float bound = std::numeric_limits<float>::infinity();
  int64_t winner = 0;
  for (int64_t first = 0; first < n; first += round::kBlock) {
    const int count = static_cast<int>(std::min(round::kBlock, n - first));
    int any = 0;
    for (int i = 0; i < count; ++i) any |= static_cast<int>(probs[first + i] > 0);
    if (any == 0) continue;
    gumbel_bits(counter, key, first, bits);
    for (int i = 0; i < count; ++i) {
      const float p = probs[first + i];
      if (!(p > 0) || static_cast<float>(bits[i]) * kBitsToUniform > p * bound) continue;
      const float score = std::log(p) + gumbel_noise(bits[i]);
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
    ids[r] = gumbel_winner(probs.as<float>() + r * n, n, counter, round.seeds[s]);
  });
}

}  // namespace tandem
