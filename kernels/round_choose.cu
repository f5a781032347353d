#include "round.cuh"

namespace tandem::kernels {
namespace {

// The round's bookkeeping and its choices by argmax. Bound: one read of the logits from L2.

constexpr int kChooseThreads = 256;
constexpr int kSlices = 16;  // blocks of a row

__global__ void round_rows_kernel(const __grid_constant__ RoundArgs round, int first,
                                  int cache_sequence, int rows, int32_t* tokens, int32_t* positions,
                                  int32_t* slots, int32_t* sequences) {
  let_next_kernel_start();
  wait_for_earlier_work();
  for (int r = threadIdx.x; r < rows; r += blockDim.x) {
    const int per_sequence = rows / round.sequences;
    const int s = r / per_sequence, offset = first + r % per_sequence;
    const int position = max(round.length[s] + offset, 0);
    tokens[r] = offset <= 0
                    ? round.history[static_cast<int64_t>(s) * round.history_stride + position]
                    : round.drafts[static_cast<int64_t>(s) * round.max_drafts + offset - 1];
    positions[r] = position;
    slots[r] = position;
    sequences[r] = cache_sequence + s;
  }
}

__global__ void commit_kernel(const __grid_constant__ RoundArgs round) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const int s = blockIdx.x;
  const int32_t* output = round.output + static_cast<int64_t>(s) * (round.max_drafts + 1);
  const int count = round.count[s], length = round.length[s];
  const auto i = static_cast<int>(threadIdx.x);
  const bool keep = round.results != nullptr;
  const int number = keep ? round.rounds[s] : 0;
  int32_t* result = round.results + static_cast<int64_t>(keep ? number % round.result_slots : 0) *
                                        round.sequences * (round.max_drafts + 2);
  if (i < count) {
    if (keep) {
      result[round.sequences + static_cast<int64_t>(s) * (round.max_drafts + 1) + i] = output[i];
    }
    round.history[static_cast<int64_t>(s) * round.history_stride + length + 1 + i] = output[i];
    if (round.output_counts != nullptr) {
      atomicAdd(round.output_counts + static_cast<int64_t>(s) * round.vocab + output[i], 1);
    }
  }
  __syncthreads();
  if (i != 0) return;
  round.length[s] = length + count;
  if (keep) {
    result[s] = count;
    round.rounds[s] = number + 1;
  }
}

/// Joins the slices of a row; the last block to arrive writes the winner and clears the scratch.
/// Maxima of integers: the order of arrival does not matter.
template <typename Write>
__device__ void choose(unsigned long long key, int row, int rows, void* scratch, Write write) {
  __shared__ unsigned long long keys[kChooseThreads / kWarpLanes];
#pragma unroll
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
    const unsigned long long other = __shfl_xor_sync(0xffffffffu, key, offset);
    key = other > key ? other : key;
  }
  if (threadIdx.x % kWarpLanes == 0) keys[threadIdx.x / kWarpLanes] = key;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kChooseThreads / kWarpLanes; ++w) key = keys[w] > key ? keys[w] : key;
  auto* best = static_cast<unsigned long long*>(scratch);
  auto* arrived = reinterpret_cast<unsigned int*>(best + rows);
  atomicMax(best + row, key);
  __threadfence();
  if (atomicAdd(arrived + row, 1u) != gridDim.x - 1) return;
  __threadfence();
  const unsigned long long winner = atomicExch(best + row, 0ull);
  arrived[row] = 0;
  write(winner);
}

__global__ __launch_bounds__(kChooseThreads) void argmax_kernel(
    const __grid_constant__ RoundArgs round, const __grid_constant__ LogitsArgs args, int32_t* ids,
    void* scratch) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const int row = blockIdx.y, n = min(args.columns, round.vocab);
  const AdjustedRow logits(round, args, row);
  unsigned long long best = 0;
  for (int i = static_cast<int>(blockIdx.x * kChooseThreads + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x) * kChooseThreads) {
    const unsigned long long key = choice_key(logits(i), i);
    best = key > best ? key : best;
  }
  choose(best, row, args.rows, scratch,
         [=](unsigned long long winner) { ids[row] = id_of(winner); });
}

__global__ __launch_bounds__(kChooseThreads) void share_argmax_kernel(const float* logits, int rows,
                                                                      int columns, int first_id,
                                                                      int2* choices,
                                                                      void* scratch) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const int row = blockIdx.y;
  const float* const x = logits + static_cast<int64_t>(row) * columns;
  unsigned long long best = 0;
  for (int i = static_cast<int>(blockIdx.x * kChooseThreads + threadIdx.x); i < columns;
       i += static_cast<int>(gridDim.x) * kChooseThreads) {
    const unsigned long long key = choice_key(x[i], first_id + i);
    best = key > best ? key : best;
  }
  choose(best, row, rows, scratch, [=](unsigned long long winner) {
    choices[row] = {__float_as_int(score_of(winner)), id_of(winner)};
  });
}

__global__ void join_argmax_kernel(const int2* choices, int shares, int rows, int32_t* ids) {
  let_next_kernel_start();
  wait_for_earlier_work();
  for (int row = static_cast<int>(threadIdx.x); row < rows; row += static_cast<int>(blockDim.x)) {
    unsigned long long best = 0;
    for (int share = 0; share < shares; ++share) {
      const int2 choice = choices[share * rows + row];
      const unsigned long long key = choice_key(__int_as_float(choice.x), choice.y);
      best = key > best ? key : best;
    }
    ids[row] = id_of(best);
  }
}

/// Standard Gumbel noise from 32 random bits, as core/philox.cpp makes it.
__device__ __forceinline__ float gumbel_noise(uint32_t bits) {
  constexpr float kLargestBelowOne = 1.0f - 0x1p-24f;
  const float u = fminf((static_cast<float>(bits) + 0.5f) * 0x1p-32f, kLargestBelowOne);
  return -logf(-log1pf(-u));
}

/// A thread takes the four ids of a Philox block.
__global__ __launch_bounds__(kChooseThreads) void gumbel_kernel(
    const __grid_constant__ RoundArgs round, const float* probs, int rows, int first, int32_t* ids,
    void* scratch) {
  let_next_kernel_start();
  wait_for_earlier_work();
  constexpr int kNumbers = 4;
  const int row = blockIdx.y, n = round.vocab;
  const int per_sequence = rows / round.sequences, s = row / per_sequence;
  const float* p = probs + static_cast<int64_t>(row) * n;
  const int position = round.length[s] + first + row % per_sequence;
  const uint64_t key = round.seeds[s];
  unsigned long long best = choice_key(-INFINITY, 0);
  for (int block = static_cast<int>(blockIdx.x * kChooseThreads + threadIdx.x);
       block * kNumbers < n; block += static_cast<int>(gridDim.x) * kChooseThreads) {
    float weights[kNumbers];
    bool any = false;
#pragma unroll
    for (int i = 0; i < kNumbers; ++i) {
      weights[i] = block * kNumbers + i < n ? p[block * kNumbers + i] : 0.0f;
      any |= weights[i] > 0;
    }
    if (!any) continue;
    const uint4 random = philox(random_counter(position, 0, static_cast<uint32_t>(block),
                                               Purpose::kGumbel, round.streams[s]),
                                key);
    const uint32_t bits[kNumbers] = {random.x, random.y, random.z, random.w};
#pragma unroll
    for (int i = 0; i < kNumbers; ++i) {
      if (!(weights[i] > 0)) continue;
      const unsigned long long candidate =
          choice_key(logf(weights[i]) + gumbel_noise(bits[i]), block * kNumbers + i);
      best = candidate > best ? candidate : best;
    }
  }
  choose(best, row, rows, scratch, [=](unsigned long long winner) { ids[row] = id_of(winner); });
}

}  // namespace

cudaError_t round_rows(const RoundArgs& round, int first, int cache_sequence, int rows,
                       int32_t* tokens, int32_t* positions, int32_t* slots, int32_t* sequences,
                       Launch launch) {
  return launch_kernel(round_rows_kernel, dim3(1), dim3(kWarpLanes), 0, launch, round, first,
                       cache_sequence, rows, tokens, positions, slots, sequences);
}

cudaError_t commit(const RoundArgs& round, Launch launch) {
  static_assert(kMostDrafts + 1 <= kWarpLanes);
  return launch_kernel(commit_kernel, dim3(static_cast<unsigned>(round.sequences)),
                       dim3(kWarpLanes), 0, launch, round);
}

cudaError_t argmax(const RoundArgs& round, const LogitsArgs& logits, int32_t* ids, void* scratch,
                   Launch launch) {
  return launch_kernel(argmax_kernel, dim3(kSlices, static_cast<unsigned>(logits.rows)),
                       dim3(kChooseThreads), 0, launch, round, logits, ids, scratch);
}

cudaError_t share_argmax(const float* logits, int rows, int columns, int first_id, int32_t* choices,
                         void* scratch, Launch launch) {
  return launch_kernel(share_argmax_kernel, dim3(kSlices, static_cast<unsigned>(rows)),
                       dim3(kChooseThreads), 0, launch, logits, rows, columns, first_id,
                       reinterpret_cast<int2*>(choices), scratch);
}

cudaError_t join_argmax(const int32_t* choices, int shares, int rows, int32_t* ids, Launch launch) {
  return launch_kernel(join_argmax_kernel, dim3(1), dim3(kChooseThreads), 0, launch,
                       reinterpret_cast<const int2*>(choices), shares, rows, ids);
}

cudaError_t gumbel_argmax(const RoundArgs& round, const float* probs, int rows, int first,
                          int32_t* ids, void* scratch, Launch launch) {
  return launch_kernel(gumbel_kernel, dim3(kSlices, static_cast<unsigned>(rows)),
                       dim3(kChooseThreads), 0, launch, round, probs, rows, first, ids, scratch);
}

}  // namespace tandem::kernels
