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

/// Where a warp's measures, the first lane's first, reach a target.
struct Reached {
  int lane;  ///< the last one with a measure if they never do
  double before, until;
};
__device__ __forceinline__ Reached reach(double measure, double start, double target) {
  const auto lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  double until = measure;
#pragma unroll
  for (int offset = 1; offset < kWarpLanes; offset *= 2) {
    const double other = __shfl_up_sync(0xffffffffu, until, offset);
    if (lane >= offset) until += other;
  }
  until += start;
  const uint32_t occur = __ballot_sync(0xffffffffu, measure > 0);
  const uint32_t reach = __ballot_sync(0xffffffffu, measure > 0 && until >= target);
  const int last = 31 - __clz(static_cast<int>(occur));
  const int owner = max(reach != 0 ? __ffs(static_cast<int>(reach)) - 1 : last, 0);
  const double before = __shfl_sync(0xffffffffu, until, max(owner - 1, 0));
  return {owner, owner > 0 ? before : start, __shfl_sync(0xffffffffu, until, owner)};
}

/// One warp finds the digit at which the measure reaches the target, from the largest one down; the
/// smallest that occurs if it never does.
/// @param chosen a key whose digits from this one on are the smallest
template <Measure kMeasure>
__device__ __forceinline__ void choose_digit(uint32_t chosen, int shift, double target,
                                             double above, KeySelection& shared) {
  constexpr int kLaneDigits = kDigits / kWarpLanes;
  const auto lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const auto measure_of = [&](int digit) {
    const auto measure = static_cast<double>(shared.total[digit]);
    if (kMeasure == Measure::kCount) return measure;
    return measure * unit_of(chosen + (static_cast<uint32_t>(digit) << shift));
  };
  const int top = kDigits - 1;
  double mine = 0;
#pragma unroll
  for (int i = 0; i < kLaneDigits; ++i) mine += measure_of(top - lane * kLaneDigits - i);
  const Reached run = reach(mine, above, target);
  const int run_top = top - run.lane * kLaneDigits;
  const double own = lane < kLaneDigits ? measure_of(run_top - lane) : 0.0;
  const Reached found = reach(own, run.before, target);
  if (lane != 0) return;
  const int digit = run_top - found.lane;
  const uint32_t prefix = chosen + (static_cast<uint32_t>(digit) << shift);
  shared.digit = digit;
  shared.above = found.before;
  // All keys of the digit are wanted, or there is one alone: it cannot weigh less than its prefix.
  shared.settled = kMeasure == Measure::kCount
                       ? found.until <= target
                       : shared.total[digit] > 0 && shift < kFractionBits &&
                             shared.total[digit] < 2ull * integer_of(prefix);
}

/// Where the digits of the keys lie. Most weights are far too small to be the answer; then the
/// first digit tells apart more than the exponents of those that are not.
struct KeyRange {
  uint32_t least = 0;  ///< smaller keys are not the answer, nor are those that do not count
  bool is_high = false;
  static constexpr int kShift = 23, kHighShift = 19;
  /// Of the smallest high key, when 1 is the largest.
  static constexpr uint32_t kHighKeys = ((0x3f800000u >> kHighShift) - (kDigits - 1)) << kHighShift;
};
/// Of weights up to 1 whose smallest interesting one is `least`.
__device__ __forceinline__ KeyRange range_of_weights(float least) {
  const uint32_t key = max(__float_as_uint(least), 1u);
  return {key, key >= KeyRange::kHighKeys};
}

/// A key that tells those with measure {keys >= it} >= target, as few as can be, from the smaller
/// ones; everything that counts if there is no such key. `key(i)` for i < count are this block's.
template <Measure kMeasure, typename Key>
__device__ Threshold select_key(RowCluster& cluster, const Key& key, int count, double target,
                                const KeyRange& range, KeySelection& shared) {
  const auto thread = static_cast<int>(threadIdx.x);
  Threshold result;
  int fixed_from = 32, turn = 0;
  int shift = range.is_high ? KeyRange::kHighShift : KeyRange::kShift;
  if (range.is_high) result.key = KeyRange::kHighKeys;
#pragma unroll 1
  for (;;) {
    for (int i = thread; i < kCopies * kDigits; i += kRowThreads) {
      shared.low[0][i] = 0;
      if (kMeasure == Measure::kMass) shared.high[0][i] = 0;
    }
    __syncthreads();
    const int copy = thread % kCopies;
#pragma unroll 4
    for (int i = thread; i < count; i += kRowThreads) {
      const uint32_t k = key(i);
      if (k < range.least) continue;
      if (fixed_from < 32 && (k >> fixed_from) != (result.key >> fixed_from)) continue;
      const uint32_t digit = min((k - result.key) >> shift, uint32_t{kDigits - 1});  // NaN
      if (kMeasure == Measure::kCount) {
        atomicAdd(&shared.low[copy][digit], 1u);
      } else {
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
#pragma unroll
      for (int rank = 0; rank < kClusterBlocks; ++rank) {
        if (rank < cluster.size()) total += *cluster.at(&shared.own[turn][d], rank);
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
    result.key += static_cast<uint32_t>(digit) << shift;
    result.ties = static_cast<double>(shared.total[digit]);
    result.settled = shared.settled;
    if (result.settled || shift == 0) break;
    fixed_from = shift;
    shift = max(shift - kDigitBits, 0);
    turn ^= 1;
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
