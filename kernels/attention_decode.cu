#include "attention_common.cuh"

namespace tandem::kernels {
namespace {

// Attention of up to 16 rows over the paged cache (split over the sequence as in Flash-Decoding).
// Bound: the keys and values once for every 16 query vectors of a kv head.
// Work: an item is one kv head, a tile of 16 query vectors (row by row, the heads of the group
// inside) and a part of kAttentionPart slots, of which four warps take 32 each; blocks take items
// in turn. A part's sums go to `partials`; the block that finishes a tile's last item adds up the
// parts of its rows, in ascending order. A query vector's arithmetic depends on its own slots
// alone: other rows of the tile never touch it.
//
// There is a block for each multiprocessor, and no two fit beside a block of the matmul in front.
// So each multiprocessor holds one when the next matmul's blocks start, which then find one place
// on each.

constexpr int kPartWarps = 4;
constexpr int kWarpSlots = kAttentionPart / kPartWarps;
constexpr int kTileRows = 16;
constexpr int kMostItemsPerBlock = 4;  // beyond, multiprocessors hold several blocks
constexpr int kSharedBytes = 64 << 10;
constexpr uint32_t kAllLanes = 0xffffffffu;
/// Few enough registers for a place beside a matmul's block.
constexpr int most_blocks_by_registers(int head_dim) { return head_dim > 128 ? 1 : 3; }

__host__ __device__ constexpr int parts_of(int slots) {
  return (slots + kAttentionPart - 1) / kAttentionPart;
}

/// Counts of finished items by tile, which are zero between launches; then partial sums: weighted
/// values (vectors, parts, head_dim), maximum and weight sum.
struct Partials {
  int* finished;
  float* values;
  float2* scales;
  int parts;
  __host__ __device__ Partials(const AttentionArgs& args)
      : finished(reinterpret_cast<int*>(args.partials)),
        values(args.partials + kMostAttentionHeads),
        parts(parts_of(args.cache.max_pages * args.cache.page_tokens)) {
    scales = reinterpret_cast<float2*>(values + static_cast<int64_t>(args.rows) * args.heads *
                                                    parts * args.cache.head_dim);
  }
};

/// Adds up the parts of a warp's vectors, in ascending order.
/// @param vectors row * heads + head
/// @param parts   of each vector; 0 leaves it alone
template <int kHeadDim, int kVectors>
__device__ __forceinline__ void combine_parts(const AttentionArgs& args, const Partials& partials,
                                              const int (&vectors)[kVectors],
                                              const int (&parts)[kVectors], int most_parts,
                                              int lane) {
  constexpr int kMine = kHeadDim / kWarpLanes;
  constexpr int kAtOnce = kHeadDim > 64 ? 2 : 4;
  float top[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    top[v] = -INFINITY;
    for (int part = lane; part < parts[v]; part += kWarpLanes) {
      top[v] =
          fmaxf(top[v], __ldcg(&partials.scales[int64_t{vectors[v]} * partials.parts + part].x));
    }
    top[v] = warp_max(top[v]);
  }
  float total[kVectors] = {}, value[kVectors][kMine] = {};
  for (int first = 0; first < most_parts; first += kAtOnce) {
    float2 scale[kAtOnce][kVectors];
    float loaded[kAtOnce][kVectors][kMine];
#pragma unroll
    for (int p = 0; p < kAtOnce; ++p) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        if (first + p < parts[v]) {
          const int64_t from = int64_t{vectors[v]} * partials.parts + first + p;
          scale[p][v] = __ldcg(partials.scales + from);
#pragma unroll
          for (int d = 0; d < kMine; ++d) {
            loaded[p][v][d] = __ldcg(partials.values + from * kHeadDim + d * kWarpLanes + lane);
          }
        }
      }
    }
#pragma unroll
    for (int p = 0; p < kAtOnce; ++p) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        if (first + p < parts[v]) {
          const float weight = exp2f(scale[p][v].x - top[v]);
          total[v] = fmaf(weight, scale[p][v].y, total[v]);
#pragma unroll
          for (int d = 0; d < kMine; ++d) {
            value[v][d] = fmaf(weight, loaded[p][v][d], value[v][d]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (parts[v] == 0) continue;
    auto* out = static_cast<__nv_bfloat16*>(args.out) + int64_t{vectors[v]} * kHeadDim + lane;
#pragma unroll
    for (int d = 0; d < kMine; ++d) {
      out[d * kWarpLanes] = __float2bfloat16_rn(value[v][d] / total[v]);
    }
  }
}

__device__ __forceinline__ void rotate_bf16_pairs(uint32_t& low, uint32_t& high, float2 cosines,
                                                  float2 sines) {
  float2 l = unpack_bf16(low), h = unpack_bf16(high);
  rotate_pair(l.x, h.x, cosines.x, sines.x);
  rotate_pair(l.y, h.y, cosines.y, sines.y);
  low = pack_bf16(l.x, l.y);
  high = pack_bf16(h.x, h.y);
}

/// A lane's share of a head's elements, 32 d + 8 t … + 7 in elements[d * kStride], rotated.
/// @param angles the row's cosines from element 8 t on, then sines
template <int kHeadDim, int kStride>
__device__ __forceinline__ void rotate_share(uint4* elements, const float* angles) {
  constexpr int kHalf = kHeadDim / 2;
  static_assert(kHalf % 32 == 0);
#pragma unroll
  for (int d = 0; d < kHalf / 32; ++d) {
    const auto* cosines = reinterpret_cast<const float4*>(angles + 32 * d);
    const auto* sines = reinterpret_cast<const float4*>(angles + kHalf + 32 * d);
    const float4 c0 = __ldcg(cosines), c1 = __ldcg(cosines + 1);
    const float4 s0 = __ldcg(sines), s1 = __ldcg(sines + 1);
    uint4& low = elements[d * kStride];
    uint4& high = elements[(d + kHalf / 32) * kStride];
    rotate_bf16_pairs(low.x, high.x, {c0.x, c0.y}, {s0.x, s0.y});
    rotate_bf16_pairs(low.y, high.y, {c0.z, c0.w}, {s0.z, s0.w});
    rotate_bf16_pairs(low.z, high.z, {c1.x, c1.y}, {s1.x, s1.y});
    rotate_bf16_pairs(low.w, high.w, {c1.z, c1.w}, {s1.z, s1.w});
  }
}

/// @tparam kAppends rotates q and k first and appends k and v at the rows' slots
template <int kHeadDim, bool kAppends>
__global__ __launch_bounds__(
    kPartWarps* kWarpLanes,
    most_blocks_by_registers(
        kHeadDim)) void attention_decode_kernel(const __grid_constant__ AttentionArgs args) {
  constexpr int kPitch = kHeadDim + 8;
  constexpr int kWarpBytes = kWarpSlots * kPitch * 2;
  static_assert(kWarpBytes >= kTileRows * kHeadDim * 4);
  constexpr int kTiles = kWarpSlots / 8;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float2 shared_scales[kPartWarps][kTileRows];
  __shared__ int shared_finished;

  let_next_kernel_start();
  // With kAppends all that is read before the wait dates from before this pass, which begins with
  // kernels that let no later one start before they have waited themselves.
  if (!kAppends) wait_for_earlier_work();
  const CacheArgs& cache = args.cache;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int g = lane / 4, t = lane % 4;
  const int group = args.heads / cache.kv_heads;
  const int vectors = args.rows * group;
  const int tiles = (vectors + kTileRows - 1) / kTileRows;
  const int64_t width = static_cast<int64_t>(args.heads + 2 * cache.kv_heads) * kHeadDim;
  const auto* const qkv = static_cast<const __nv_bfloat16*>(args.qkv);
  const Partials partials(args);

  // Lanes 0 … 15 each know one row; the others ask them.
  static_assert(kMaxDecodeRows <= kWarpLanes);
  const int row_slot = lane < args.rows ? __ldcg(args.slots + lane) : -1;
  const int row_sequence = lane < args.rows ? __ldcg(args.sequences + lane) : -1;
  bool has_waited = !kAppends;
  const int items = parts_of(__reduce_max_sync(kAllLanes, row_slot) + 1) * cache.kv_heads * tiles;
  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    const int kv_head = item % cache.kv_heads;
    const int tile = item / cache.kv_heads % tiles;
    const int part = item / (cache.kv_heads * tiles);
    // … and one vector of the tile.
    const int first_vector = tile * kTileRows;
    const bool is_vector = lane < kTileRows && first_vector + lane < vectors;
    const int my_row = is_vector ? (first_vector + lane) / group : 0;
    const int slot_of_row = __shfl_sync(kAllLanes, row_slot, my_row);
    const int sequence_of_row = __shfl_sync(kAllLanes, row_sequence, my_row);
    const int my_slot = is_vector ? slot_of_row : -1;
    const int my_sequence = is_vector ? sequence_of_row : -1;
    const int tile_parts = parts_of(__reduce_max_sync(kAllLanes, my_slot) + 1);
    if (part >= tile_parts) continue;

    auto* values = reinterpret_cast<__nv_bfloat16*>(shared + warp * kWarpBytes);
    uint32_t left = __ballot_sync(kAllLanes, is_vector);
    while (left != 0) {
      // Vectors of one sequence are handled together.
      const int sequence = __shfl_sync(kAllLanes, my_sequence, __ffs(left) - 1);
      const bool taken = is_vector && my_sequence == sequence;
      left &= ~__ballot_sync(kAllLanes, taken);
      const int my_limit = taken ? my_slot : -1;
      const int last_slot = __reduce_max_sync(kAllLanes, my_limit);
      if (part * kAttentionPart > last_slot) continue;
      const int limit[2] = {__shfl_sync(kAllLanes, my_limit, g),
                            __shfl_sync(kAllLanes, my_limit, g + 8)};

      const int first_slot = part * kAttentionPart + warp * kWarpSlots;
      static_assert(kWarpSlots == kWarpLanes);
      const bool is_slot = first_slot + lane <= last_slot;
      const int my_cache_row =
          is_slot ? cache_row(cache, sequence, kv_head, first_slot + lane) : -1;
      int my_new_row = -1;  // the row of this pass that the slot belongs to
      if constexpr (kAppends) {
        for (int row = 0; row < args.rows; ++row) {
          const int slot = __shfl_sync(kAllLanes, row_slot, row);
          const int owner = __shfl_sync(kAllLanes, row_sequence, row);
          if (is_slot && slot == first_slot + lane && owner == sequence) my_new_row = row;
        }
      }
      const int my_cached_row = my_new_row < 0 ? my_cache_row : -1;
      const auto element = [&](int cache_row) {
        return static_cast<int64_t>(cache_row) * kHeadDim;
      };
      const auto new_head = [&](int row, int head) {
        return qkv + row * width + static_cast<int64_t>(args.heads + head) * kHeadDim;
      };
      const auto brings = [&](int row) { return row >= 0 && row * group / kTileRows == tile; };

      // Keys to registers, values to shared memory: what the cache holds from before this pass does
      // not have to wait for the work in front.
      uint4 k[kTiles][kHeadDim / 32];
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const int row = __shfl_sync(kAllLanes, my_cached_row, j * 8 + g);
        const auto* key = static_cast<const __nv_bfloat16*>(cache.keys) + element(row) + 8 * t;
#pragma unroll
        for (int d = 0; d < kHeadDim / 32; ++d) {
          k[j][d] = row >= 0 ? *reinterpret_cast<const uint4*>(key + 32 * d) : uint4{0, 0, 0, 0};
        }
      }
      for (int i = lane; i < kWarpSlots * (kHeadDim / 8); i += kWarpLanes) {
        const int s = i / (kHeadDim / 8), d = i % (kHeadDim / 8) * 8;
        const int row = __shfl_sync(kAllLanes, my_cached_row, s);
        copy_async16(
            values + s * kPitch + d,
            static_cast<const __nv_bfloat16*>(cache.values) + (row >= 0 ? element(row) + d : 0),
            row >= 0);
      }
      copy_async_commit();
      if (kAppends && !has_waited) wait_for_earlier_work(), has_waited = true;

      // This lane's two operand rows: vectors g and g + 8 of the tile.
      uint4 q[kHeadDim / 32][2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int vector = first_vector + g + 8 * i;
        const bool real = vector < vectors;
        const int row = real ? vector / group : 0;
        const int head = kv_head * group + (real ? vector % group : 0);
        const auto* from = qkv + row * width + static_cast<int64_t>(head) * kHeadDim + 8 * t;
#pragma unroll
        for (int d = 0; d < kHeadDim / 32; ++d) {
          q[d][i] = real ? *reinterpret_cast<const uint4*>(from + 32 * d) : uint4{0, 0, 0, 0};
        }
        if constexpr (kAppends) {
          rotate_share<kHeadDim, 2>(&q[0][i],
                                    args.angles + static_cast<int64_t>(row) * kHeadDim + 8 * t);
        }
      }

      if constexpr (kAppends) {
        // New rows' keys and values come from qkv; the tile that a row begins in brings them to the
        // cache, which nobody else reads there in this pass.
        const bool any_new = __any_sync(kAllLanes, my_new_row >= 0);
#pragma unroll
        for (int j = 0; j < kTiles && any_new; ++j) {
          const int row = __shfl_sync(kAllLanes, my_new_row, j * 8 + g);
          const int cache_row = __shfl_sync(kAllLanes, my_cache_row, j * 8 + g);
          if (row >= 0) {
            const auto* key = new_head(row, kv_head) + 8 * t;
#pragma unroll
            for (int d = 0; d < kHeadDim / 32; ++d) {
              k[j][d] = *reinterpret_cast<const uint4*>(key + 32 * d);
            }
            rotate_share<kHeadDim, 1>(k[j],
                                      args.angles + static_cast<int64_t>(row) * kHeadDim + 8 * t);
            if (brings(row)) {
              auto* to = static_cast<__nv_bfloat16*>(cache.keys) + element(cache_row) + 8 * t;
#pragma unroll
              for (int d = 0; d < kHeadDim / 32; ++d) {
                *reinterpret_cast<uint4*>(to + 32 * d) = k[j][d];
              }
            }
          }
        }
        // A lane writes over zeros that it has copied itself.
        if (any_new) copy_async_wait<0>();
#pragma unroll 2
        for (int i = lane; i < kWarpSlots * (kHeadDim / 8) && any_new; i += kWarpLanes) {
          const int s = i / (kHeadDim / 8), d = i % (kHeadDim / 8) * 8;
          const int row = __shfl_sync(kAllLanes, my_new_row, s);
          const int cache_row = __shfl_sync(kAllLanes, my_cache_row, s);
          if (row >= 0) {
            const uint4 value =
                *reinterpret_cast<const uint4*>(new_head(row, cache.kv_heads + kv_head) + d);
            *reinterpret_cast<uint4*>(values + s * kPitch + d) = value;
            if (brings(row)) {
              *reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(cache.values) +
                                        element(cache_row) + d) = value;
            }
          }
        }
      }

      float p[kTiles][4] = {};
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int d = 0; d < kHeadDim / 32; ++d) {
          const uint4 low = q[d][0], high = q[d][1];
          const uint32_t even[4] = {low.x, high.x, low.y, high.y};
          const uint32_t odd[4] = {low.z, high.z, low.w, high.w};
          mma_bf16(p[j], even, k[j][d].x, k[j][d].y);
          mma_bf16(p[j], odd, k[j][d].z, k[j][d].w);
        }
      }
      // Softmax over this warp's slots; a vector that sees none of them keeps -infinity and 0.
      const float factor = args.scale * kLog2E;
      float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int slot = first_slot + j * 8 + 2 * t + e % 2;
          p[j][e] = slot <= limit[e / 2] ? p[j][e] * factor : -INFINITY;
          largest[e / 2] = fmaxf(largest[e / 2], p[j][e]);
        }
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) largest[i] = quad_max(largest[i]);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          p[j][e] = p[j][e] == -INFINITY ? 0.0f : exp2f(p[j][e] - largest[e / 2]);
          sum[e / 2] += p[j][e];
        }
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) sum[i] = quad_sum(sum[i]);

      copy_async_wait<0>();
      __syncwarp();
      float o[kHeadDim / 8][4] = {};
      multiply_values<kHeadDim, kTiles>(o, p, values, kPitch, lane);
      __syncwarp();

      // The four warps' sums meet in shared memory, where the values were.
      auto* mine = reinterpret_cast<float*>(shared + warp * kWarpBytes);
#pragma unroll
      for (int d = 0; d < kHeadDim / 8; ++d) {
        *reinterpret_cast<float2*>(mine + g * kHeadDim + d * 8 + 2 * t) = {o[d][0], o[d][1]};
        *reinterpret_cast<float2*>(mine + (g + 8) * kHeadDim + d * 8 + 2 * t) = {o[d][2], o[d][3]};
      }
      if (t == 0) {
        shared_scales[warp][g] = {largest[0], sum[0]};
        shared_scales[warp][g + 8] = {largest[1], sum[1]};
      }
      __syncthreads();
      for (int i = warp; i < kTileRows; i += kPartWarps) {
        const int last = __shfl_sync(kAllLanes, my_limit, i);
        if (last < part * kAttentionPart) continue;
        const int vector = first_vector + i;
        float top = -INFINITY;
#pragma unroll
        for (int w = 0; w < kPartWarps; ++w) top = fmaxf(top, shared_scales[w][i].x);
        float weight[kPartWarps], total = 0;
#pragma unroll
        for (int w = 0; w < kPartWarps; ++w) {
          weight[w] = exp2f(shared_scales[w][i].x - top);
          total += weight[w] * shared_scales[w][i].y;
        }
        const int64_t index =
            static_cast<int64_t>(vector / group) * args.heads + kv_head * group + vector % group;
        const int64_t to = index * partials.parts + part;
        const bool alone = last < kAttentionPart;  // the row's only part: nothing to add it to
        for (int d = lane; d < kHeadDim; d += kWarpLanes) {
          float value = 0;
#pragma unroll
          for (int w = 0; w < kPartWarps; ++w) {
            value += weight[w] *
                     reinterpret_cast<const float*>(shared + w * kWarpBytes)[i * kHeadDim + d];
          }
          if (alone) {
            static_cast<__nv_bfloat16*>(args.out)[index * kHeadDim + d] =
                __float2bfloat16_rn(value / total);
          } else {
            partials.values[to * kHeadDim + d] = value;
          }
        }
        if (lane == 0 && !alone) partials.scales[to] = {top, total};
      }
      __syncthreads();
    }

    if (tile_parts == 1) continue;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      int* const finished = partials.finished + tile * cache.kv_heads + kv_head;
      shared_finished = atomicAdd(finished, 1) + 1;
      if (shared_finished == tile_parts) *finished = 0;
    }
    __syncthreads();
    const bool is_last = shared_finished == tile_parts;
    __syncthreads();
    if (!is_last) continue;
    __threadfence();
    constexpr int kVectors = kTileRows / kPartWarps;
    int indices[kVectors];
    int parts[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int i = warp + v * kPartWarps, vector = first_vector + i;
      const int row_parts = parts_of(__shfl_sync(kAllLanes, my_slot, i) + 1);
      parts[v] = vector < vectors && row_parts > 1 ? row_parts : 0;
      indices[v] = vector / group * args.heads + kv_head * group + vector % group;
    }
    combine_parts<kHeadDim>(args, partials, indices, parts, tile_parts, lane);
  }
  if (!has_waited) wait_for_earlier_work();
}

}  // namespace

int64_t attention_partial_floats(int rows, int heads, const CacheArgs& cache) {
  return kMostAttentionHeads + static_cast<int64_t>(rows) * heads *
                                   parts_of(cache.max_pages * cache.page_tokens) *
                                   (cache.head_dim + 2);
}

bool attention_decode_appends(int head_dim) {
  return head_dim == 64 || head_dim == 128 || head_dim == 256;
}

cudaError_t attention_decode(const AttentionArgs& args, Launch launch) {
  if (args.heads > kMostAttentionHeads) return cudaErrorInvalidValue;
  const int parts = parts_of(args.cache.max_pages * args.cache.page_tokens);
  // Of a tile: the cache is seldom full. Beyond, memory is kept busier by more blocks.
  const bool few = parts * args.cache.kv_heads <= launch.multiprocessors * kMostItemsPerBlock;
  const int blocks = launch.multiprocessors * (few ? 1 : kMostItemsPerBlock);
  const auto run = [&](auto kernel, int bytes) {
    const cudaError_t attribute =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (attribute != cudaSuccess) return attribute;
    return launch_between_matmuls(kernel, dim3(static_cast<unsigned>(blocks)),
                                  dim3(kPartWarps * kWarpLanes), static_cast<size_t>(bytes), launch,
                                  args);
  };
  return for_head_dim(args.cache.head_dim, [&](auto size) {
    constexpr int kHeadDim = decltype(size)::value;
    constexpr int kNeeded = kPartWarps * kWarpSlots * (kHeadDim + 8) * 2;
    const int bytes =
        few && launch.capability >= 90 && kNeeded < kSharedBytes ? kSharedBytes : kNeeded;
    if constexpr (kHeadDim % 64 == 0) {
      if (args.angles != nullptr) return run(attention_decode_kernel<kHeadDim, true>, bytes);
    }
    return run(attention_decode_kernel<kHeadDim, false>, bytes);
  });
}

}  // namespace tandem::kernels
