#pragma once

#include "row_cluster.cuh"

namespace tandem::kernels {

// The k-th largest key of a row, or the one at which the mass of the larger ones reaches a target,
// without a sort: up to four histograms by ever finer digits of the keys, over a cluster. Sums are
// those of integers, so that no order of arrival matters.

constexpr int kDigitBits = 9;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kCopies = 4;  // of a histogram, so that lanes seldom meet
constexpr int kHalfBits = 12;
constexpr int kFractionBits = 23;

struct KeySelection {
  uint32_t low[kCopies][kDigits];      ///< counts, or the lower halves of the weights' integers
  uint32_t high[kCopies][kDigits];     ///< the upper halves
  unsigned long long own[2][kDigits];  ///< the block's histograms in turn, read by the others
  unsigned long long total[kDigits];   ///< the cluster's
  int counts[kRowWarps];
  int digit;
  double above;
  bool settled;  ///< the digits so far tell the larger keys from all others
};

/// What is measured up to the target: keys, or the floats that the keys are the bits of.
enum class Measure { kCount, kMass };

struct Threshold {
  uint32_t key = 0;
  double above = 0;      ///< the measure of the larger keys
  double ties = 0;       ///< how many keys are equal to it, if some of them may have to go
  bool settled = false;  ///< every key of at least `key` stays
};

/// A float of at least 0 is this integer times 2^(exponent - 150).
__device__ __forceinline__ uint32_t integer_of(uint32_t bits) {
  constexpr uint32_t kOne = 1u << kFractionBits;
  return (bits & (kOne - 1)) | (bits >= kOne ? kOne : 0u);
}
__device__ __forceinline__ double unit_of(uint32_t bits) {
  constexpr int kBias = 150, kDoubleBias = 1023, kDoubleFractionBits = 52;
  const int exponent = max(static_cast<int>(bits >> kFractionBits), 1);
  return __longlong_as_double(static_cast<long long>(exponent - kBias + kDoubleBias)
                              << kDoubleFractionBits);
}

/// One warp finds the digit at which the measure reaches the target, from the largest one down; the
/// smallest that occurs if it never does.
template <Measure kMeasure>
__device__ __forceinline__ void choose_digit(uint32_t chosen, int shift, double target,
                                             double above, KeySelection& shared) {
  constexpr int kLaneDigits = kDigits / kWarpLanes;
  const auto lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int top = kDigits - 1 - lane * kLaneDigits;
  double measures[kLaneDigits];
  double mine = 0;
#pragma unroll
  for (int i = 0; i < kLaneDigits; ++i) {
    measures[i] = static_cast<double>(shared.total[top - i]);
    if (kMeasure == Measure::kMass) {
      measures[i] *= unit_of(chosen | (static_cast<uint32_t>(top - i) << shift));
    }
    mine += measures[i];
  }
  double until = mine;
#pragma unroll
  for (int offset = 1; offset < kWarpLanes; offset *= 2) {
    const double other = __shfl_up_sync(0xffffffffu, until, offset);
    if (lane >= offset) until += other;
  }
  double before = __shfl_up_sync(0xffffffffu, until, 1);
  if (lane == 0) before = 0;
  const uint32_t occur = __ballot_sync(0xffffffffu, mine > 0);
  const uint32_t reach = __ballot_sync(0xffffffffu, mine > 0 && above + until >= target);
  const int owner =
      reach != 0 ? __ffs(static_cast<int>(reach)) - 1 : 31 - __clz(static_cast<int>(occur));
  if (lane != max(owner, 0)) return;
  double sum = above + before, sum_before = sum;
  int digit = 0;
  bool reached = false;
#pragma unroll
  for (int i = 0; i < kLaneDigits; ++i) {
    if (reached || !(measures[i] > 0)) continue;
    digit = top - i;
    sum_before = sum;
    sum += measures[i];
    reached = sum >= target;
  }
  const uint32_t prefix = chosen | (static_cast<uint32_t>(digit) << shift);
  shared.digit = digit;
  shared.above = sum_before;
  // All keys of the digit are wanted, or there is one alone: it cannot weigh less than its prefix.
  shared.settled = kMeasure == Measure::kCount
                       ? sum <= target
                       : shared.total[digit] > 0 && shift < kFractionBits &&
                             shared.total[digit] < 2ull * integer_of(prefix);
}

/// A key that tells those with measure {keys >= it} >= target, as few as can be, from the smaller
/// ones; everything that counts if there is no such key. `key(i)` for i < count are this block's.
template <Measure kMeasure, typename Key>
__device__ Threshold select_key(RowCluster& cluster, const Key& key, int count, double target,
                                KeySelection& shared) {
  constexpr int kShifts[] = {23, 14, 5, 0};
  const auto thread = static_cast<int>(threadIdx.x);
  Threshold result;
  int fixed_from = 32, turn = 0;
#pragma unroll 1
  for (const int shift : kShifts) {
    for (int i = thread; i < kCopies * kDigits; i += kRowThreads) {
      shared.low[0][i] = 0;
      if (kMeasure == Measure::kMass) shared.high[0][i] = 0;
    }
    __syncthreads();
    const uint32_t digits = (1u << (fixed_from - shift)) - 1u;
    const int copy = thread % kCopies;
    for (int i = thread; i < count; i += kRowThreads) {
      const uint32_t k = key(i);
      if (fixed_from < 32 && (k >> fixed_from) != (result.key >> fixed_from)) continue;
      const uint32_t digit = (k >> shift) & digits;
      if (kMeasure == Measure::kCount) {
        atomicAdd(&shared.low[copy][digit], 1u);
      } else if (k != 0) {
        const uint32_t integer = integer_of(k);
        atomicAdd(&shared.low[copy][digit], integer & ((1u << kHalfBits) - 1u));
        atomicAdd(&shared.high[copy][digit], integer >> kHalfBits);
      }
    }
    __syncthreads();
    for (int d = thread; d < kDigits; d += kRowThreads) {
      unsigned long long low = 0, high = 0;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        low += shared.low[i][d];
        if (kMeasure == Measure::kMass) high += shared.high[i][d];
      }
      shared.own[turn][d] = low + (high << kHalfBits);
    }
    cluster.sync();
    for (int d = thread; d < kDigits; d += kRowThreads) {
      unsigned long long total = 0;
      for (int rank = 0; rank < cluster.size(); ++rank) {
        total += *cluster.at(&shared.own[turn][d], rank);
      }
      shared.total[d] = total;
    }
    __syncthreads();
    if (thread < kWarpLanes) {
      choose_digit<kMeasure>(result.key, shift, target, result.above, shared);
    }
    __syncthreads();
    const int digit = shared.digit;
    result.above = shared.above;
    result.key |= static_cast<uint32_t>(digit) << shift;
    result.ties = static_cast<double>(shared.total[digit]);
    fixed_from = shift;
    turn ^= 1;
    if (shared.settled) {
      result.settled = true;
      break;
    }
  }
  cluster.sync();  // nobody reads this block's histograms any more
  if (result.settled) return result;
  if (kMeasure == Measure::kMass) {
    const uint32_t integer = integer_of(result.key);
    result.ties = integer > 0 ? result.ties / integer : 0.0;
  }
  return result;
}

/// Calls drop(i) for every i with equal(i), of the threshold's ties in the row, but the first
/// `keep`.
template <typename Equal, typename Drop>
__device__ void drop_later_ties(RowCluster& cluster, const Equal& equal, const Drop& drop,
                                int count, int keep, const Threshold& threshold,
                                KeySelection& shared) {
  if (threshold.settled || keep >= threshold.ties) return;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  int mine = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kRowThreads) mine += equal(i) ? 1 : 0;
  int before = cluster.sum_before(mine);
  for (int first = 0; first < count; first += kRowThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    const bool tie = i < count && equal(i);
    const uint32_t bits = __ballot_sync(0xffffffffu, tie);
    __syncthreads();
    if (lane == 0) shared.counts[warp] = __popc(bits);
    __syncthreads();
    int rank = before + __popc(bits & ((1u << lane) - 1u));
    for (int w = 0; w < kRowWarps; ++w) {
      if (w < warp) rank += shared.counts[w];
      before += shared.counts[w];
    }
    if (tie && rank >= keep) drop(i);
  }
}

}  // namespace tandem::kernels
