#include "attention_common.cuh"

namespace tandem::kernels {
namespace {

// Attention of many rows over the paged cache (FlashAttention-2, Dao 2023).
// Bound: tensor cores, 4 rows * slots * head_dim operations for each head.
// Work: a block takes one head and 64 rows, 16 for each of its four warps, and walks over the cache
// in tiles of 64 slots, keys and values in shared memory.

constexpr int kPrefillWarps = 4;
constexpr int kTileSlots = 64;
constexpr int kWarpRows = 16;
constexpr int kBlockRows = kPrefillWarps * kWarpRows;

template <int kHeadDim>
__global__ __launch_bounds__(kPrefillWarps* kWarpLanes) void attention_prefill_kernel(
    const __grid_constant__ AttentionArgs args) {
  constexpr int kPitch = kHeadDim + 8;
  constexpr int kTiles = kTileSlots / 8;
  constexpr int kThreads = kPrefillWarps * kWarpLanes;
  extern __shared__ __align__(128) unsigned char shared[];
  auto* keys = reinterpret_cast<__nv_bfloat16*>(shared);
  auto* values = keys + kTileSlots * kPitch;

  let_next_kernel_start();
  wait_for_earlier_work();
  const CacheArgs& cache = args.cache;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int g = lane / 4, t = lane % 4;
  const int head = blockIdx.y, kv_head = head / (args.heads / cache.kv_heads);
  // The longest tiles first: they take longest.
  const int first_row = (gridDim.x - 1 - blockIdx.x) * kBlockRows;
  const int last_row = min(first_row + kBlockRows, args.rows) - 1;
  const int64_t width = static_cast<int64_t>(args.heads + 2 * cache.kv_heads) * kHeadDim;

  uint4 q[kHeadDim / 32][2];
  int slot_of[2], sequence_of[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first_row + warp * kWarpRows + g + 8 * i;
    const bool real = row <= last_row;
    slot_of[i] = real ? args.slots[row] : -1;
    sequence_of[i] = real ? args.sequences[row] : -1;
    const auto* from = static_cast<const __nv_bfloat16*>(args.qkv) + (real ? row : 0) * width +
                       static_cast<int64_t>(head) * kHeadDim + 8 * t;
#pragma unroll
    for (int d = 0; d < kHeadDim / 32; ++d) {
      q[d][i] = real ? *reinterpret_cast<const uint4*>(from + 32 * d) : uint4{0, 0, 0, 0};
    }
  }
  float o[kHeadDim / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  const float factor = args.scale * kLog2E;

  for (int leader = first_row; leader <= last_row; ++leader) {
    const int sequence = args.sequences[leader];
    bool seen = false;
    int last_slot = 0;
    for (int r = first_row; r <= last_row; ++r) {
      if (args.sequences[r] != sequence) continue;
      seen |= r < leader;
      last_slot = max(last_slot, args.slots[r]);
    }
    if (seen) continue;
    int limit[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) limit[i] = sequence_of[i] == sequence ? slot_of[i] : -1;

    for (int first_slot = 0; first_slot <= last_slot; first_slot += kTileSlots) {
      __syncthreads();
      for (int i = threadIdx.x; i < kTileSlots * (kHeadDim / 8); i += kThreads) {
        const int s = i / (kHeadDim / 8), d = i % (kHeadDim / 8) * 8;
        const bool real = first_slot + s <= last_slot;
        const int64_t offset =
            real ? cache_offset(cache, sequence, kv_head, first_slot + s) + d : 0;
        copy_async16(keys + s * kPitch + d, static_cast<const __nv_bfloat16*>(cache.keys) + offset,
                     real);
        copy_async16(values + s * kPitch + d,
                     static_cast<const __nv_bfloat16*>(cache.values) + offset, real);
      }
      copy_async_commit();
      copy_async_wait<0>();
      __syncthreads();

      float p[kTiles][4] = {};
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int d = 0; d < kHeadDim / 32; ++d) {
          const uint4 k =
              *reinterpret_cast<const uint4*>(keys + (j * 8 + g) * kPitch + 32 * d + 8 * t);
          const uint4 low = q[d][0], high = q[d][1];
          const uint32_t even[4] = {low.x, high.x, low.y, high.y};
          const uint32_t odd[4] = {low.z, high.z, low.w, high.w};
          mma_bf16(p[j], even, k.x, k.y);
          mma_bf16(p[j], odd, k.z, k.w);
        }
      }
      float top[2] = {largest[0], largest[1]};
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int slot = first_slot + j * 8 + 2 * t + e % 2;
          p[j][e] = slot <= limit[e / 2] ? p[j][e] * factor : -INFINITY;
          top[e / 2] = fmaxf(top[e / 2], p[j][e]);
        }
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        top[i] = quad_max(top[i]);
        const float fade = top[i] == -INFINITY ? 1.0f : exp2f(largest[i] - top[i]);
        largest[i] = top[i];
        sum[i] *= fade;
#pragma unroll
        for (int d = 0; d < kHeadDim / 8; ++d) {
          o[d][2 * i] *= fade;
          o[d][2 * i + 1] *= fade;
        }
      }
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          p[j][e] = p[j][e] == -INFINITY ? 0.0f : exp2f(p[j][e] - largest[e / 2]);
          sum[e / 2] += p[j][e];
        }
      }
      multiply_values<kHeadDim, kTiles>(o, p, values, kPitch, lane);
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first_row + warp * kWarpRows + g + 8 * i;
    const float total = quad_sum(sum[i]);
    if (row > last_row) continue;
    auto* to = static_cast<__nv_bfloat16*>(args.out) +
               (static_cast<int64_t>(row) * args.heads + head) * kHeadDim + 2 * t;
#pragma unroll
    for (int d = 0; d < kHeadDim / 8; ++d) {
      *reinterpret_cast<uint32_t*>(to + d * 8) =
          pack_bf16(o[d][2 * i] / total, o[d][2 * i + 1] / total);
    }
  }
}

}  // namespace

cudaError_t attention_prefill(const AttentionArgs& args, Launch launch) {
  const dim3 grid(static_cast<unsigned>((args.rows + kBlockRows - 1) / kBlockRows),
                  static_cast<unsigned>(args.heads));
  return for_head_dim(args.cache.head_dim, [&](auto size) {
    constexpr int kHeadDim = decltype(size)::value;
    constexpr int kBytes = 2 * kTileSlots * (kHeadDim + 8) * 2;
    const cudaError_t error = cudaFuncSetAttribute(
        attention_prefill_kernel<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (error != cudaSuccess) return error;
    return launch_kernel(attention_prefill_kernel<kHeadDim>, grid, dim3(kPrefillWarps * kWarpLanes),
                         kBytes, launch, args);
  });
}

}  // namespace tandem::kernels
