#include "attention_common.cuh"

namespace tandem::kernels {
namespace {

// Attention of up to 16 rows over the paged cache (split over the sequence as in Flash-Decoding),
// with the rows' own rotation and appending before it where `angles` are given.
// Bound: the keys and values once for every 16 query vectors of a kv head.
// Work: a block takes one kv head, 16 query vectors (row by row, the heads of the group inside) and
// parts of kAttentionPart slots in turn; its four warps take 32 slots each. A part's sums go to
// `partials`; the last block of a kv head and tile to arrive adds the parts of a row in ascending
// order. A query vector's arithmetic depends on its own slots alone: other rows of the tile never
// touch it. The new rows' keys and values come from `qkv`, never from the cache, so that it does
// not matter which block appends them.

constexpr int kPartWarps = 4;
constexpr int kWarpSlots = kAttentionPart / kPartWarps;
constexpr int kTileRows = 16;
constexpr int kBlocksPerMultiprocessor = 2;
constexpr uint32_t kAllLanes = 0xffffffffu;
static_assert(kTileRows == kMaxDecodeRows);  // a lane for each vector of a tile, or row of a pass

__host__ __device__ constexpr int parts_of(int slots) {
  return (slots + kAttentionPart - 1) / kAttentionPart;
}

/// Partial sums: weighted values (vectors, parts, head_dim), then maximum and weight sum.
struct Partials {
  float* values;
  float2* scales;
  int parts;
  __host__ __device__ Partials(const AttentionArgs& args)
      : values(args.partials), parts(parts_of(args.cache.max_pages * args.cache.page_tokens)) {
    scales = reinterpret_cast<float2*>(values + static_cast<int64_t>(args.rows) * args.heads *
                                                    parts * args.cache.head_dim);
  }
};

/// What a block keeps in shared memory, in bfloat16: the tile's query vectors, the new rows' keys,
/// and each warp's values.
template <int kHeadDim>
struct Tile {
  static constexpr int kPitch = kHeadDim + 8;
  static constexpr int kRowsBytes = kTileRows * kPitch * 2;
  static constexpr int kWarpBytes = kWarpSlots * kPitch * 2;
  static constexpr int kBytes = 2 * kRowsBytes + kPartWarps * kWarpBytes;
  static_assert(kWarpBytes >= kTileRows * kHeadDim * 4);
};

/// A vector of a head, its pairs dealt to a warp, with its row's angles.
template <int kHeadDim>
struct HeadVector {
  static constexpr int kHalf = kHeadDim / 2, kPairs = (kHalf + kWarpLanes - 1) / kWarpLanes;
  float low[kPairs], high[kPairs], cosine[kPairs], sine[kPairs];

  __device__ __forceinline__ void load(const AttentionArgs& args, const __nv_bfloat16* from,
                                       int row, int lane) {
    const float* angles = args.angles + static_cast<int64_t>(row) * kHeadDim;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int i = lane + p * kWarpLanes;
      low[p] = high[p] = cosine[p] = sine[p] = 0;
      if (i < kHalf) {
        low[p] = __bfloat162float(from[i]);
        high[p] = __bfloat162float(from[kHalf + i]);
        if (args.angles != nullptr) cosine[p] = angles[i], sine[p] = angles[kHalf + i];
      }
    }
  }
  /// To shared memory: normed and rotated where asked for.
  __device__ __forceinline__ void store(const AttentionArgs& args, const float* norm,
                                        __nv_bfloat16* to, int lane) {
    float factor = 1;
    if (args.angles != nullptr && norm != nullptr) {
      float squares = 0;
#pragma unroll
      for (int p = 0; p < kPairs; ++p) squares = add_squares(squares, low[p], high[p]);
      factor = head_norm_factor(squares, kHeadDim, args.eps);
    }
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int i = lane + p * kWarpLanes;
      if (i < kHalf) {
        if (args.angles != nullptr) {
          if (norm != nullptr) {
            low[p] = low[p] * factor * norm[i];
            high[p] = high[p] * factor * norm[kHalf + i];
          }
          rotate_pair(low[p], high[p], cosine[p], sine[p]);
        }
        to[i] = __float2bfloat16_rn(low[p]);
        to[kHalf + i] = __float2bfloat16_rn(high[p]);
      }
    }
  }
};

template <int kHeadDim>
__global__ __launch_bounds__(kPartWarps* kWarpLanes) void attention_decode_kernel(
    const __grid_constant__ AttentionArgs args) {
  using Layout = Tile<kHeadDim>;
  constexpr int kPitch = Layout::kPitch;
  constexpr int kTiles = kWarpSlots / 8;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float2 shared_scales[kPartWarps][kTileRows];
  __shared__ bool shared_is_last;

  let_next_kernel_start();
  wait_for_earlier_work();
  const CacheArgs& cache = args.cache;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int g = lane / 4, t = lane % 4;
  const int kv_head = blockIdx.y;
  const int group = args.heads / cache.kv_heads;
  const int first_vector = blockIdx.z * kTileRows, vectors = args.rows * group;
  const int64_t width = static_cast<int64_t>(args.heads + 2 * cache.kv_heads) * kHeadDim;
  const auto* qkv = static_cast<const __nv_bfloat16*>(args.qkv);
  const auto* new_keys = qkv + (args.heads + kv_head) * kHeadDim;
  const auto* new_values = new_keys + static_cast<int64_t>(cache.kv_heads) * kHeadDim;
  const bool appends = args.angles != nullptr;
  const Partials partials(args);

  // Lanes 0 … 15 each know one row of the pass, and one vector's row; the others ask them.
  const int new_slot = lane < args.rows ? args.slots[lane] : -1;
  const int new_sequence = lane < args.rows ? args.sequences[lane] : -1;
  const int my_vector = first_vector + lane;
  const bool is_vector = lane < kTileRows && my_vector < vectors;
  const int my_row = is_vector ? my_vector / group : 0;
  const int row_slot = __shfl_sync(kAllLanes, new_slot, my_row);
  const int row_sequence = __shfl_sync(kAllLanes, new_sequence, my_row);
  const int my_slot = is_vector ? row_slot : -1;
  const int my_sequence = is_vector ? row_sequence : -1;
  const int working_blocks =
      min(static_cast<int>(gridDim.x), parts_of(__reduce_max_sync(kAllLanes, my_slot) + 1));
  if (static_cast<int>(blockIdx.x) >= working_blocks) return;

  auto* queries = reinterpret_cast<__nv_bfloat16*>(shared);
  auto* keys = reinterpret_cast<__nv_bfloat16*>(shared + Layout::kRowsBytes);
  auto* values =
      reinterpret_cast<__nv_bfloat16*>(shared + 2 * Layout::kRowsBytes + warp * Layout::kWarpBytes);
  // A warp takes every fourth vector and every fourth new key; all loads go out before the first
  // use.
  constexpr int kShare = kTileRows / kPartWarps;
  HeadVector<kHeadDim> heads[kShare];
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    const int vector = first_vector + i * kPartWarps + warp;
    if (vector < vectors) {
      const int row = vector / group, head = kv_head * group + vector % group;
      heads[i].load(args, qkv + row * width + static_cast<int64_t>(head) * kHeadDim, row, lane);
    } else {
      heads[i] = {};
    }
  }
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    heads[i].store(args, args.q_norm, queries + (i * kPartWarps + warp) * kPitch, lane);
  }
  if (appends) {
    int slots[kShare];
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int row = i * kPartWarps + warp;
      slots[i] = __shfl_sync(kAllLanes, new_slot, row);
      if (row >= args.rows || slots[i] / kAttentionPart % gridDim.x != blockIdx.x) slots[i] = -1;
      if (slots[i] >= 0) heads[i].load(args, new_keys + row * width, row, lane);
    }
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int row = i * kPartWarps + warp;
      const int sequence = __shfl_sync(kAllLanes, new_sequence, row);
      if (slots[i] < 0) continue;
      heads[i].store(args, args.k_norm, keys + row * kPitch, lane);
      if (row * group / kTileRows != blockIdx.z) continue;
      __syncwarp();
      const int64_t to = cache_offset(cache, sequence, kv_head, slots[i]);
      for (int d = lane; d < kHeadDim; d += kWarpLanes) {
        static_cast<__nv_bfloat16*>(cache.keys)[to + d] = keys[row * kPitch + d];
        static_cast<__nv_bfloat16*>(cache.values)[to + d] = new_values[row * width + d];
      }
    }
  }
  __syncthreads();

  // This lane's two operand rows: vectors g and g + 8 of the tile.
  uint4 q[kHeadDim / 32][2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int d = 0; d < kHeadDim / 32; ++d) {
      q[d][i] = *reinterpret_cast<const uint4*>(queries + (g + 8 * i) * kPitch + 32 * d + 8 * t);
    }
  }

  uint32_t left = __ballot_sync(kAllLanes, is_vector);
  while (left != 0) {
    // Vectors of one sequence are handled together.
    const int sequence = __shfl_sync(kAllLanes, my_sequence, __ffs(left) - 1);
    const bool taken = is_vector && my_sequence == sequence;
    left &= ~__ballot_sync(kAllLanes, taken);
    const int my_limit = taken ? my_slot : -1;
    const int last_slot = __reduce_max_sync(kAllLanes, my_limit);
    const int limit[2] = {__shfl_sync(kAllLanes, my_limit, g),
                          __shfl_sync(kAllLanes, my_limit, g + 8)};

    for (int part = blockIdx.x; part * kAttentionPart <= last_slot; part += gridDim.x) {
      const int first_slot = part * kAttentionPart + warp * kWarpSlots;
      static_assert(kWarpSlots == kWarpLanes);
      // Where this lane's slot lies: in the cache, among the new rows, or behind the last one.
      const bool is_slot = first_slot + lane <= last_slot;
      int my_new_row = -1;
      for (int row = 0; appends && row < args.rows; ++row) {
        const int slot = __shfl_sync(kAllLanes, new_slot, row);
        const int owner = __shfl_sync(kAllLanes, new_sequence, row);
        if (is_slot && slot == first_slot + lane && owner == sequence) my_new_row = row;
      }
      const int64_t my_offset = is_slot && my_new_row < 0
                                    ? cache_offset(cache, sequence, kv_head, first_slot + lane)
                                    : -1;
      uint4 k[kTiles][kHeadDim / 32];
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const int64_t offset = __shfl_sync(kAllLanes, my_offset, j * 8 + g);
        const int new_row = __shfl_sync(kAllLanes, my_new_row, j * 8 + g);
        const auto* key = static_cast<const __nv_bfloat16*>(cache.keys) + offset + 8 * t;
#pragma unroll
        for (int d = 0; d < kHeadDim / 32; ++d) {
          k[j][d] = offset >= 0 ? *reinterpret_cast<const uint4*>(key + 32 * d) : uint4{0, 0, 0, 0};
          if (new_row >= 0) {
            k[j][d] = *reinterpret_cast<const uint4*>(keys + new_row * kPitch + 32 * d + 8 * t);
          }
        }
      }
      for (int i = lane; i < kWarpSlots * (kHeadDim / 8); i += kWarpLanes) {
        const int s = i / (kHeadDim / 8), d = i % (kHeadDim / 8) * 8;
        const int64_t offset = __shfl_sync(kAllLanes, my_offset, s);
        const int new_row = __shfl_sync(kAllLanes, my_new_row, s);
        const auto* value = new_row >= 0 ? new_values + new_row * width
                                         : static_cast<const __nv_bfloat16*>(cache.values) +
                                               (offset >= 0 ? offset : 0);
        copy_async16(values + s * kPitch + d, value + d, offset >= 0 || new_row >= 0);
      }
      copy_async_commit();

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
      auto* mine = reinterpret_cast<float*>(values);
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
        if (__shfl_sync(kAllLanes, my_limit, i) < part * kAttentionPart) continue;
        const int vector = first_vector + i;
        const int row = vector / group;
        float top = -INFINITY;
#pragma unroll
        for (int w = 0; w < kPartWarps; ++w) top = fmaxf(top, shared_scales[w][i].x);
        float weight[kPartWarps], total = 0;
#pragma unroll
        for (int w = 0; w < kPartWarps; ++w) {
          weight[w] = exp2f(shared_scales[w][i].x - top);
          total += weight[w] * shared_scales[w][i].y;
        }
        const int64_t to =
            (static_cast<int64_t>(row) * args.heads + kv_head * group + vector % group) *
                partials.parts +
            part;
        for (int d = lane; d < kHeadDim; d += kWarpLanes) {
          float value = 0;
#pragma unroll
          for (int w = 0; w < kPartWarps; ++w) {
            value += weight[w] *
                     reinterpret_cast<const float*>(shared + 2 * Layout::kRowsBytes +
                                                    w * Layout::kWarpBytes)[i * kHeadDim + d];
          }
          partials.values[to * kHeadDim + d] = value;
        }
        if (lane == 0) partials.scales[to] = {top, total};
      }
      __syncthreads();
    }
  }

  // The last block of this kv head and tile adds up what all of them left, parts in ascending
  // order.
  if (working_blocks > 1) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      int* arrived = args.arrivals + blockIdx.z * cache.kv_heads + kv_head;
      shared_is_last = atomicAdd(arrived, 1) == working_blocks - 1;
      if (shared_is_last) *arrived = 0;
    }
    __syncthreads();
    if (!shared_is_last) return;
    __threadfence();
  } else {
    __syncthreads();
  }
  constexpr int kElements = kHeadDim / kWarpLanes;  // of a lane
  constexpr int kBatch = kElements <= 4 ? 4 : 2;    // parts whose sums are in flight together
  int parts[kShare], most_parts = 0;
  int64_t index[kShare];
  float top[kShare], total[kShare], value[kShare][kElements];
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    const int place = i * kPartWarps + warp, vector = first_vector + place;
    parts[i] = parts_of(__shfl_sync(kAllLanes, my_slot, place) + 1);  // 0 behind the last vector
    most_parts = max(most_parts, parts[i]);
    index[i] = static_cast<int64_t>(vector / group) * args.heads + kv_head * group + vector % group;
    top[i] = -INFINITY, total[i] = 0;
#pragma unroll
    for (int d = 0; d < kElements; ++d) value[i][d] = 0;
  }
  for (int first = 0; first < most_parts; first += kBatch) {
    float2 scales[kShare][kBatch];
    float sums[kShare][kBatch][kElements];
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
#pragma unroll
      for (int p = 0; p < kBatch; ++p) {
        if (first + p >= parts[i]) continue;
        const int64_t from = index[i] * partials.parts + first + p;
        scales[i][p] = __ldcg(partials.scales + from);
#pragma unroll
        for (int d = 0; d < kElements; ++d) {
          sums[i][p][d] = __ldcg(partials.values + from * kHeadDim + d * kWarpLanes + lane);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
#pragma unroll
      for (int p = 0; p < kBatch; ++p) {
        if (first + p >= parts[i]) continue;
        const float new_top = fmaxf(top[i], scales[i][p].x);
        const float before = exp2f(top[i] - new_top), weight = exp2f(scales[i][p].x - new_top);
        top[i] = new_top;
        total[i] = fmaf(total[i], before, weight * scales[i][p].y);
#pragma unroll
        for (int d = 0; d < kElements; ++d) {
          value[i][d] = fmaf(value[i][d], before, weight * sums[i][p][d]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    if (parts[i] == 0) continue;
#pragma unroll
    for (int d = 0; d < kElements; ++d) {
      static_cast<__nv_bfloat16*>(args.out)[index[i] * kHeadDim + d * kWarpLanes + lane] =
          __float2bfloat16_rn(value[i][d] / total[i]);
    }
  }
}

}  // namespace

int64_t attention_partial_floats(int rows, int heads, const CacheArgs& cache) {
  return static_cast<int64_t>(rows) * heads * parts_of(cache.max_pages * cache.page_tokens) *
         (cache.head_dim + 2);
}

cudaError_t attention_decode(const AttentionArgs& args, Launch launch) {
  const int vectors = args.rows * (args.heads / args.cache.kv_heads);
  const int tiles = (vectors + kTileRows - 1) / kTileRows;
  const int parts = parts_of(args.cache.max_pages * args.cache.page_tokens);
  const int most =
      launch.multiprocessors * kBlocksPerMultiprocessor / (args.cache.kv_heads * tiles);
  const int columns = parts < most ? parts : most < 1 ? 1 : most;
  const dim3 grid(static_cast<unsigned>(columns), static_cast<unsigned>(args.cache.kv_heads),
                  static_cast<unsigned>(tiles));
  return for_head_dim(args.cache.head_dim, [&](auto size) {
    constexpr int kHeadDim = decltype(size)::value;
    constexpr int kBytes = Tile<kHeadDim>::kBytes;
    const cudaError_t attribute = cudaFuncSetAttribute(
        attention_decode_kernel<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (attribute != cudaSuccess) return attribute;
    return launch_kernel(attention_decode_kernel<kHeadDim>, grid, dim3(kPartWarps * kWarpLanes),
                         kBytes, launch, args);
  });
}

}  // namespace tandem::kernels
