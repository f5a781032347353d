#include "attention_common.cuh"

namespace tandem::kernels {
namespace {

// Attention of many rows over the paged cache (FlashAttention-2, Dao 2023).
// Bound: tensor cores, 4 rows * slots * head_dim operations for each head.
// Work: a block takes one head and 64 rows, 16 for each of its four warps, and walks over the cache
// in tiles of 64 slots (32 of the largest heads); the next tile's keys and values are on their way
// to shared memory meanwhile.

constexpr int kPrefillWarps = 4;
constexpr int kThreads = kPrefillWarps * kWarpLanes;
constexpr int kWarpRows = 16;
constexpr int kBlockRows = kPrefillWarps * kWarpRows;
static_assert(kBlockRows == 2 * kWarpLanes);

template <int kHeadDim>
struct Shared {
  static constexpr int kPitch = kHeadDim + 8;
  static constexpr int kTileSlots = kHeadDim <= 128 ? 64 : 32;
  __nv_bfloat16 keys[2][kTileSlots * kPitch];
  __nv_bfloat16 values[2][kTileSlots * kPitch];
  int64_t offsets[3][kTileSlots];  ///< of a tile's slots in the cache, -1 behind the last one
  int slots[kBlockRows];
  int sequences[kBlockRows];
};

/// Rows of a block that read the same sequence.
struct RowGroup {
  uint64_t rows;  ///< a bit for each
  int sequence;
  int last_slot;
};
/// The group of the lowest of the `left` rows. Call with whole warps.
template <int kHeadDim>
__device__ __forceinline__ RowGroup first_group(const Shared<kHeadDim>& shared, uint64_t left,
                                                int lane) {
  const int sequence = shared.sequences[__ffsll(static_cast<long long>(left)) - 1];
  const bool low = (left >> lane & 1) != 0 && shared.sequences[lane] == sequence;
  const bool high =
      (left >> (lane + kWarpLanes) & 1) != 0 && shared.sequences[lane + kWarpLanes] == sequence;
  const uint64_t rows = __ballot_sync(0xffffffffu, low) |
                        static_cast<uint64_t>(__ballot_sync(0xffffffffu, high)) << kWarpLanes;
  const int last_slot = __reduce_max_sync(
      0xffffffffu, max(low ? shared.slots[lane] : 0, high ? shared.slots[lane + kWarpLanes] : 0));
  return {rows, sequence, last_slot};
}

template <int kHeadDim>
__device__ __forceinline__ void find_offsets(const CacheArgs& cache, const RowGroup& group,
                                             int kv_head, int tile, Shared<kHeadDim>& shared) {
  constexpr int kTileSlots = Shared<kHeadDim>::kTileSlots;
  const auto s = static_cast<int>(threadIdx.x);
  if (s >= kTileSlots) return;
  const int slot = tile * kTileSlots + s;
  shared.offsets[tile % 3][s] =
      slot <= group.last_slot ? cache_offset(cache, group.sequence, kv_head, slot) : -1;
}

template <int kHeadDim>
__device__ __forceinline__ void copy_tile(const CacheArgs& cache, int tile,
                                          Shared<kHeadDim>& shared) {
  constexpr int kVectors = kHeadDim / 8, kTileSlots = Shared<kHeadDim>::kTileSlots;
#pragma unroll
  for (int i = 0; i < kTileSlots * kVectors / kThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kThreads;
    const int s = at / kVectors, d = at % kVectors * 8;
    const int64_t offset = shared.offsets[tile % 3][s];
    const bool real = offset >= 0;
    const int64_t from = real ? offset + d : 0;
    const int to = s * Shared<kHeadDim>::kPitch + d;
    copy_async16(shared.keys[tile % 2] + to, static_cast<const __nv_bfloat16*>(cache.keys) + from,
                 real);
    copy_async16(shared.values[tile % 2] + to,
                 static_cast<const __nv_bfloat16*>(cache.values) + from, real);
  }
}

template <int kHeadDim>
__global__ __launch_bounds__(kThreads, kHeadDim <= 128 ? 3 : 1) void attention_prefill_kernel(
    const __grid_constant__ AttentionArgs args) {
  constexpr int kPitch = Shared<kHeadDim>::kPitch;
  constexpr int kTileSlots = Shared<kHeadDim>::kTileSlots, kTiles = kTileSlots / 8;
  extern __shared__ __align__(128) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared<kHeadDim>*>(memory);

  let_next_kernel_start();
  wait_for_earlier_work();
  const CacheArgs& cache = args.cache;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int g = lane / 4, t = lane % 4;
  const int head = blockIdx.x, kv_head = head / (args.heads / cache.kv_heads);
  // The last rows first: they take longest.
  const int first_row = (gridDim.y - 1 - blockIdx.y) * kBlockRows;
  const int rows = min(kBlockRows, args.rows - first_row);
  const int64_t width = static_cast<int64_t>(args.heads + 2 * cache.kv_heads) * kHeadDim;
  if (threadIdx.x < kBlockRows) {
    const bool real = static_cast<int>(threadIdx.x) < rows;
    shared.slots[threadIdx.x] = real ? args.slots[first_row + threadIdx.x] : -1;
    shared.sequences[threadIdx.x] = real ? args.sequences[first_row + threadIdx.x] : -1;
  }

  uint4 q[kHeadDim / 32][2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = warp * kWarpRows + g + 8 * i;
    const bool real = row < rows;
    const auto* from = static_cast<const __nv_bfloat16*>(args.qkv) +
                       (first_row + (real ? row : 0)) * width +
                       static_cast<int64_t>(head) * kHeadDim + 8 * t;
#pragma unroll
    for (int d = 0; d < kHeadDim / 32; ++d) {
      q[d][i] = real ? *reinterpret_cast<const uint4*>(from + 32 * d) : uint4{0, 0, 0, 0};
    }
  }
  float o[kHeadDim / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  const float factor = args.scale * kLog2E;
  __syncthreads();

  uint64_t left = rows == kBlockRows ? ~uint64_t{0} : (uint64_t{1} << rows) - 1;
  while (left != 0) {
    const RowGroup group = first_group(shared, left, lane);
    left &= ~group.rows;
    int limit[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = warp * kWarpRows + g + 8 * i;
      limit[i] = (group.rows >> row & 1) != 0 ? shared.slots[row] : -1;
    }
    const int first_limit = __reduce_min_sync(0xffffffffu, min(limit[0], limit[1]));
    const int last_limit = __reduce_max_sync(0xffffffffu, max(limit[0], limit[1]));

    const int tiles = group.last_slot / kTileSlots + 1;
    find_offsets(cache, group, kv_head, 0, shared);
    find_offsets(cache, group, kv_head, 1, shared);
    __syncthreads();
    copy_tile(cache, 0, shared);
    copy_async_commit();
    for (int tile = 0; tile < tiles; ++tile) {
      if (tile + 1 < tiles) copy_tile(cache, tile + 1, shared);
      copy_async_commit();
      find_offsets(cache, group, kv_head, tile + 2, shared);
      copy_async_wait<1>();
      __syncthreads();
      const int first_slot = tile * kTileSlots;
      if (first_slot <= last_limit) {
        const __nv_bfloat16* keys = shared.keys[tile % 2];
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
        if (first_slot + kTileSlots - 1 > first_limit) {
#pragma unroll
          for (int j = 0; j < kTiles; ++j) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const int slot = first_slot + j * 8 + 2 * t + e % 2;
              if (slot > limit[e / 2]) p[j][e] = -INFINITY;
            }
          }
        }
        float base[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float top = -INFINITY;
#pragma unroll
          for (int j = 0; j < kTiles; ++j) {
            top = fmaxf(top, fmaxf(p[j][2 * i], p[j][2 * i + 1]));
          }
          // The scale is positive, so that the largest stays the largest.
          top = fmaxf(largest[i], quad_max(top) * factor);
          base[i] = top == -INFINITY ? 0.0f : top;  // rows of other sequences have no slot here
          const float fade = exp2f(largest[i] - base[i]);
          largest[i] = top;
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
            p[j][e] = exp2f(fmaf(p[j][e], factor, -base[e / 2]));
            sum[e / 2] += p[j][e];
          }
        }
        multiply_values<kHeadDim, kTiles>(o, p, shared.values[tile % 2], kPitch, lane);
      }
      __syncthreads();
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = warp * kWarpRows + g + 8 * i;
    const float total = quad_sum(sum[i]);
    if (row >= rows) continue;
    auto* to = static_cast<__nv_bfloat16*>(args.out) +
               (static_cast<int64_t>(first_row + row) * args.heads + head) * kHeadDim + 2 * t;
#pragma unroll
    for (int d = 0; d < kHeadDim / 8; ++d) {
      *reinterpret_cast<uint32_t*>(to + d * 8) =
          pack_bf16(o[d][2 * i] / total, o[d][2 * i + 1] / total);
    }
  }
}

}  // namespace

cudaError_t attention_prefill(const AttentionArgs& args, Launch launch) {
  const dim3 grid(static_cast<unsigned>(args.heads),
                  static_cast<unsigned>((args.rows + kBlockRows - 1) / kBlockRows));
  return for_head_dim(args.cache.head_dim, [&](auto size) {
    constexpr int kHeadDim = decltype(size)::value;
    constexpr int kBytes = sizeof(Shared<kHeadDim>);
    const cudaError_t error = cudaFuncSetAttribute(
        attention_prefill_kernel<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (error != cudaSuccess) return error;
    return launch_kernel(attention_prefill_kernel<kHeadDim>, grid, dim3(kThreads), kBytes, launch,
                         args);
  });
}

}  // namespace tandem::kernels
