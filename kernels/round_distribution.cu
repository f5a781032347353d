#include "key_select.cuh"

namespace tandem::kernels {
namespace {

// A row's distribution after all transforms, and log-probabilities.
// Bound: one read of the logits and one write of the probabilities, from and to L2.
// Work: a cluster takes a row. Each block keeps its slice of it in shared memory, where top-k and
// top-p read it four times each; without room there, the slice stands in the result.

/// Static shared memory of the kernel besides, rounded up.
constexpr size_t kSelectionBytes = size_t{30} << 10;

template <bool kInShared>
__global__ __launch_bounds__(kRowThreads) void distribution_kernel(
    const __grid_constant__ RoundArgs round, const __grid_constant__ LogitsArgs args,
    float* probs) {
  extern __shared__ float slice[];
  __shared__ Exchange exchange;
  __shared__ KeySelection selection;
  static_assert(sizeof(Exchange) + sizeof(KeySelection) <= kSelectionBytes);
  RowCluster cluster(exchange);
  let_next_kernel_start();
  cluster.sync();  // every block is there before others write into it
  wait_for_earlier_work();
  const TransformArgs& transform = args.transform;
  const int row = cluster.row(), n = min(args.columns, round.vocab);
  float* p = probs + static_cast<int64_t>(row) * round.vocab;
  const int begin = cluster.slice_begin(cluster.rank(), n);
  const int count = cluster.slice_begin(cluster.rank() + 1, n) - begin;
  float* x = kInShared ? slice : p + begin;
  const AdjustedRow logits(round, args, row);
  const auto thread = static_cast<int>(threadIdx.x);
  float largest = -INFINITY;
  const auto take = [&](int i, float value) {
    x[i] = value;
    largest = fmaxf(largest, value);
  };
  if (logits.is_plain()) {
#pragma unroll 8
    for (int i = thread; i < count; i += kRowThreads) take(i, logits.logits[begin + i]);
  } else {
    for (int i = thread; i < count; i += kRowThreads) take(i, logits(begin + i));
  }
  largest = cluster.reduce(largest, Larger());

  if (transform.top_k > 0 && transform.top_k < n) {
    const auto key = [x](int i) { return ordered_bits(x[i]); };
    const Threshold threshold =
        select_key<Measure::kCount>(cluster, key, count, transform.top_k, {}, selection);
    const int keep = transform.top_k - static_cast<int>(threshold.above);
    drop_later_ties(
        cluster, [&](int i) { return key(i) == threshold.key; }, [x](int i) { x[i] = -INFINITY; },
        count, keep, threshold, selection);
    for (int i = thread; i < count; i += kRowThreads) {
      if (key(i) < threshold.key) x[i] = -INFINITY;
    }
  }
  const float inverse_temperature = fminf(1.0f / transform.temperature, 3.402823466e38f);
  double sum = 0;
  for (int i = thread; i < count; i += kRowThreads) {
    const float weight = x[i] == -INFINITY ? 0.0f : expf((x[i] - largest) * inverse_temperature);
    x[i] = weight;
    sum += weight;
  }
  sum = cluster.reduce(sum, Plus());

  if (transform.top_p < 1.0f) {
    const double target = static_cast<double>(transform.top_p) * sum;
    const auto key = [x](int i) { return __float_as_uint(x[i]); };
    // Less than half of what may be left out even if all the others weigh as much.
    const double least = (sum - target) / (2.0 * n);
    const Threshold threshold = select_key<Measure::kMass>(
        cluster, key, count, target, range_of_weights(static_cast<float>(least)), selection);
    const double tie = __uint_as_float(threshold.key);
    const double wanted = tie > 0 ? ceil((target - threshold.above) / tie) : 0.0;
    const int keep = static_cast<int>(fmin(fmax(wanted, 0.0), threshold.ties));
    drop_later_ties(
        cluster, [&](int i) { return key(i) == threshold.key; }, [x](int i) { x[i] = 0.0f; }, count,
        keep, threshold, selection);
    for (int i = thread; i < count; i += kRowThreads) {
      if (key(i) < threshold.key) x[i] = 0.0f;
    }
  }
  if (transform.top_p < 1.0f || transform.min_p > 0.0f) {
    sum = 0;
    for (int i = thread; i < count; i += kRowThreads) {
      const float weight = x[i] >= transform.min_p ? x[i] : 0.0f;  // the largest weight is 1
      x[i] = weight;
      sum += weight;
    }
    sum = cluster.reduce(sum, Plus());
  }
  const auto scale = static_cast<float>(1.0 / sum);
  for (int i = thread; i < count; i += kRowThreads) p[begin + i] = x[i] * scale;
  for (int i = n + cluster.rank() * kRowThreads + thread; i < round.vocab;
       i += cluster.size() * kRowThreads) {
    p[i] = 0.0f;
  }
}

struct RowSums {
  double doubles[kRowWarps];
  float floats[kRowWarps];
};

__global__ __launch_bounds__(kRowThreads) void log_probabilities_kernel(
    const float* logits, int columns, const int32_t* ids, int top, float* logprobs,
    int32_t* top_ids, float* top_logprobs, float* logsumexp) {
  __shared__ RowSums shared;
  __shared__ unsigned long long keys[kRowWarps];
  let_next_kernel_start();
  wait_for_earlier_work();
  const int row = blockIdx.x;
  const float* x = logits + static_cast<int64_t>(row) * columns;
  const auto thread = static_cast<int>(threadIdx.x);
  float largest = -INFINITY;
  for (int i = thread; i < columns; i += kRowThreads) largest = fmaxf(largest, x[i]);
  largest = reduce_block(largest, shared.floats, Larger());
  double sum = 0;
  for (int i = thread; i < columns; i += kRowThreads) sum += expf(x[i] - largest);
  sum = reduce_block(sum, shared.doubles, Plus());
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
  const size_t room = static_cast<size_t>(launch.block_shared_bytes) - kSelectionBytes;
  const int blocks = cluster_blocks(launch);
  const int n = logits.columns < round.vocab ? logits.columns : round.vocab;
  const size_t slice = static_cast<size_t>((n + blocks - 1) / blocks) * sizeof(float);
  if (slice > room) {
    return launch_clusters(distribution_kernel<false>, logits.rows, 0, launch, round, logits,
                           probs);
  }
  // The same for every launch: other threads launch the kernel, too.
  const cudaError_t error =
      cudaFuncSetAttribute(distribution_kernel<true>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(room));
  if (error != cudaSuccess) return error;
  return launch_clusters(distribution_kernel<true>, logits.rows, slice, launch, round, logits,
                         probs);
}

cudaError_t log_probabilities(const float* logits, int rows, int columns, const int32_t* ids,
                              int top, float* logprobs, int32_t* top_ids, float* top_logprobs,
                              float* logsumexp, Launch launch) {
  return launch_kernel(log_probabilities_kernel, dim3(static_cast<unsigned>(rows)),
                       dim3(kRowThreads), 0, launch, logits, columns, ids, top, logprobs, top_ids,
                       top_logprobs, logsumexp);
}

}  // namespace tandem::kernels
