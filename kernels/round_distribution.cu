#include "round.cuh"

namespace tandem::kernels {
namespace {

// A row's distribution after all transforms, and log-probabilities. One block for each row; the row
// is read from L2 a few times, and eleven times more for each of top-k and top-p.

struct Selection {
  double reduce[kRowWarps];
  float reduce_floats[kRowWarps];
  int counts[kRowWarps];
};

/// The largest key T with sum over {key >= T} of weight >= target, three bits of T at a time; 0 if
/// there is none. `above` is the sum over {key > T}.
template <typename Key, typename Weight>
__device__ uint32_t select_key(const Key& key, const Weight& weight, int n, double target,
                               double& above, Selection& shared) {
  constexpr int kWays = 8, kBits = 3, kTopShift = 30;
  uint32_t chosen = 0;
  above = 0;
  for (int shift = kTopShift; shift >= 0; shift -= kBits) {
    // masses[d]: of the keys whose higher bits are chosen's and whose digit is d
    double masses[kWays] = {};
    const uint32_t fixed = shift == kTopShift ? 0u : ~((1u << (shift + kBits)) - 1u);
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kRowThreads) {
      const uint32_t k = key(i);
      if ((k & fixed) != (chosen & fixed)) continue;
      const uint32_t digit = (k >> shift) & (kWays - 1);
      const double w = weight(i);
#pragma unroll
      for (int d = 0; d < kWays; ++d) masses[d] += digit == static_cast<uint32_t>(d) ? w : 0.0;
    }
    uint32_t digit = 0;
#pragma unroll
    for (int d = 0; d < kWays; ++d) masses[d] = reduce_block(masses[d], shared.reduce, Plus());
    for (int d = kWays - 1; d >= 0; --d) {
      if (d == 0 || above + masses[d] >= target) {
        digit = static_cast<uint32_t>(d);
        break;
      }
      above += masses[d];
    }
    chosen |= digit << shift;
  }
  return chosen;
}

/// Calls drop(i) for every i with equal(i) but the first `keep`, in ascending order.
template <typename Equal, typename Drop>
__device__ void drop_later_ties(const Equal& equal, const Drop& drop, int n, int keep,
                                Selection& shared) {
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  int before = 0;
  for (int first = 0; first < n; first += kRowThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    const bool tie = i < n && equal(i);
    const uint32_t ties = __ballot_sync(0xffffffffu, tie);
    __syncthreads();
    if (lane == 0) shared.counts[warp] = __popc(ties);
    __syncthreads();
    int rank = before + __popc(ties & ((1u << lane) - 1u));
    for (int w = 0; w < kRowWarps; ++w) {
      if (w < warp) rank += shared.counts[w];
      before += shared.counts[w];
    }
    if (tie && rank >= keep) drop(i);
  }
  __syncthreads();
}

__global__ __launch_bounds__(kRowThreads) void distribution_kernel(
    const __grid_constant__ RoundArgs round, const __grid_constant__ LogitsArgs args,
    float* probs) {
  __shared__ Selection shared;
  let_next_kernel_start();
  wait_for_earlier_work();
  const TransformArgs& transform = args.transform;
  const int row = blockIdx.x, n = min(args.columns, round.vocab);
  float* p = probs + static_cast<int64_t>(row) * round.vocab;
  const AdjustedRow logits(round, args, row);
  const auto thread = static_cast<int>(threadIdx.x);
  float largest = -INFINITY;
  for (int i = thread; i < n; i += kRowThreads) {
    const float value = logits(i);
    p[i] = value;
    largest = fmaxf(largest, value);
  }
  largest = reduce_block(largest, shared.reduce_floats, Larger());

  if (transform.top_k > 0 && transform.top_k < n) {
    double above = 0;
    const auto key = [p](int i) { return ordered_bits(p[i]); };
    const uint32_t threshold = select_key(
        key, [](int) { return 1.0; }, n, transform.top_k, above, shared);
    const int keep = transform.top_k - static_cast<int>(above);
    drop_later_ties([&](int i) { return key(i) == threshold; }, [p](int i) { p[i] = -INFINITY; }, n,
                    keep, shared);
    for (int i = thread; i < n; i += kRowThreads) {
      if (key(i) < threshold) p[i] = -INFINITY;
    }
    __syncthreads();
  }
  const float inverse_temperature = fminf(1.0f / transform.temperature, 3.402823466e38f);
  double sum = 0;
  for (int i = thread; i < n; i += kRowThreads) {
    const float weight = p[i] == -INFINITY ? 0.0f : expf((p[i] - largest) * inverse_temperature);
    p[i] = weight;
    sum += weight;
  }
  sum = reduce_block(sum, shared.reduce, Plus());

  if (transform.top_p < 1.0f) {
    const double target = static_cast<double>(transform.top_p) * sum;
    double above = 0;
    const auto key = [p](int i) { return __float_as_uint(p[i]); };
    const uint32_t threshold = select_key(
        key, [p](int i) { return static_cast<double>(p[i]); }, n, target, above, shared);
    const double tie = __uint_as_float(threshold);
    int keep = 0;
    while (above < target && tie > 0 && keep < n) {
      above += tie;
      ++keep;
    }
    drop_later_ties([&](int i) { return key(i) == threshold; }, [p](int i) { p[i] = 0.0f; }, n,
                    keep, shared);
    for (int i = thread; i < n; i += kRowThreads) {
      if (key(i) < threshold) p[i] = 0.0f;
    }
    __syncthreads();
  }
  if (transform.top_p < 1.0f || transform.min_p > 0.0f) {
    sum = 0;
    for (int i = thread; i < n; i += kRowThreads) {
      const float weight = p[i] >= transform.min_p ? p[i] : 0.0f;  // the largest weight is 1
      p[i] = weight;
      sum += weight;
    }
    sum = reduce_block(sum, shared.reduce, Plus());
  }
  const auto scale = static_cast<float>(1.0 / sum);
  for (int i = thread; i < n; i += kRowThreads) p[i] *= scale;
  for (int i = n + thread; i < round.vocab; i += kRowThreads) p[i] = 0.0f;
}

__global__ __launch_bounds__(kRowThreads) void log_probabilities_kernel(
    const float* logits, int columns, const int32_t* ids, int top, float* logprobs,
    int32_t* top_ids, float* top_logprobs, float* logsumexp) {
  __shared__ Selection shared;
  __shared__ unsigned long long keys[kRowWarps];
  let_next_kernel_start();
  wait_for_earlier_work();
  const int row = blockIdx.x;
  const float* x = logits + static_cast<int64_t>(row) * columns;
  const auto thread = static_cast<int>(threadIdx.x);
  float largest = -INFINITY;
  for (int i = thread; i < columns; i += kRowThreads) largest = fmaxf(largest, x[i]);
  largest = reduce_block(largest, shared.reduce_floats, Larger());
  double sum = 0;
  for (int i = thread; i < columns; i += kRowThreads) sum += expf(x[i] - largest);
  sum = reduce_block(sum, shared.reduce, Plus());
  const auto log_sum = static_cast<float>(largest + log(sum));
  if (thread == 0) {
    logsumexp[row] = log_sum;
    if (ids != nullptr) logprobs[row] = x[ids[row]] - log_sum;
  }
  // One after the other: each is the largest key below the one before.
  unsigned long long bound = ~0ull;
  for (int k = 0; k < top; ++k) {
    unsigned long long best = 0;
    for (int i = thread; i < columns; i += kRowThreads) {
      const unsigned long long key = (static_cast<unsigned long long>(ordered_bits(x[i])) << 32) |
                                     (0xffffffffu - static_cast<uint32_t>(i));
      if (key < bound && key > best) best = key;
    }
    bound = reduce_block(best, keys, Larger());
    if (thread == 0) {
      const auto id = static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(bound));
      top_ids[row * top + k] = id;
      top_logprobs[row * top + k] = x[id] - log_sum;
    }
  }
}

}  // namespace

cudaError_t distribution(const RoundArgs& round, const LogitsArgs& logits, float* probs,
                         Launch launch) {
  return launch_kernel(distribution_kernel, dim3(static_cast<unsigned>(logits.rows)),
                       dim3(kRowThreads), 0, launch, round, logits, probs);
}

cudaError_t log_probabilities(const float* logits, int rows, int columns, const int32_t* ids,
                              int top, float* logprobs, int32_t* top_ids, float* top_logprobs,
                              float* logsumexp, Launch launch) {
  return launch_kernel(log_probabilities_kernel, dim3(static_cast<unsigned>(rows)),
                       dim3(kRowThreads), 0, launch, logits, columns, ids, top, logprobs, top_ids,
                       top_logprobs, logsumexp);
}

}  // namespace tandem::kernels
