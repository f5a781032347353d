#include "attention_common.cuh"

namespace tandem::kernels {
namespace {

// Attention of up to 16 rows over the paged cache (split over the sequence as in Flash-Decoding).
// Bound: the keys and values once for every 16 query vectors of a kv head.
// Work: a block takes one kv head, 16 query vectors (row by row, the heads of the group inside) and
// parts of kAttentionPart slots in turn; its four warps take 32 slots each. A part's sums go to
// `partials`, and a second kernel adds the parts of a row in ascending order. A query vector's
// arithmetic depends on its own slots alone: other rows of the tile never touch it.

constexpr int kPartWarps = 4;
constexpr int kWarpSlots = kAttentionPart / kPartWarps;
constexpr int kTileRows = 16;
constexpr uint32_t kAllLanes = 0xffffffffu;

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

template <int kHeadDim>
__global__ __launch_bounds__(kPartWarps* kWarpLanes) void attention_part_kernel(
    const __grid_constant__ AttentionArgs args) {
  constexpr int kPitch = kHeadDim + 8;
  constexpr int kWarpBytes = kWarpSlots * kPitch * 2;
  static_assert(kWarpBytes >= kTileRows * kHeadDim * 4);
  constexpr int kTiles = kWarpSlots / 8;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float2 shared_scales[kPartWarps][kTileRows];

  let_next_kernel_start();
  wait_for_earlier_work();
  const CacheArgs& cache = args.cache;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int g = lane / 4, t = lane % 4;
  const int kv_head = blockIdx.y;
  const int group = args.heads / cache.kv_heads;
  const int first_vector = blockIdx.z * kTileRows, vectors = args.rows * group;
  const int64_t width = static_cast<int64_t>(args.heads + 2 * cache.kv_heads) * kHeadDim;
  const Partials partials(args);

  // Lanes 0 … 15 each know one vector's row; the others ask them.
  const int my_vector = first_vector + lane;
  const bool is_vector = lane < kTileRows && my_vector < vectors;
  const int my_row = is_vector ? my_vector / group : 0;
  const int my_slot = is_vector ? args.slots[my_row] : -1;
  const int my_sequence = is_vector ? args.sequences[my_row] : -1;

  // This lane's two operand rows: vectors g and g + 8 of the tile.
  uint4 q[kHeadDim / 32][2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int vector = first_vector + g + 8 * i;
    const bool real = vector < vectors;
    const int row = real ? vector / group : 0;
    const int head = kv_head * group + (real ? vector % group : 0);
    const auto* from = static_cast<const __nv_bfloat16*>(args.qkv) + row * width +
                       static_cast<int64_t>(head) * kHeadDim + 8 * t;
#pragma unroll
    for (int d = 0; d < kHeadDim / 32; ++d) {
      q[d][i] = real ? *reinterpret_cast<const uint4*>(from + 32 * d) : uint4{0, 0, 0, 0};
    }
  }

  auto* values = reinterpret_cast<__nv_bfloat16*>(shared + warp * kWarpBytes);
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
      const bool is_slot = first_slot + lane <= last_slot;
      const int64_t my_offset =
          is_slot ? cache_offset(cache, sequence, kv_head, first_slot + lane) : -1;
      uint4 k[kTiles][kHeadDim / 32];
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const int64_t offset = __shfl_sync(kAllLanes, my_offset, j * 8 + g);
        const auto* key = static_cast<const __nv_bfloat16*>(cache.keys) + offset + 8 * t;
#pragma unroll
        for (int d = 0; d < kHeadDim / 32; ++d) {
          k[j][d] = offset >= 0 ? *reinterpret_cast<const uint4*>(key + 32 * d) : uint4{0, 0, 0, 0};
        }
      }
      for (int i = lane; i < kWarpSlots * (kHeadDim / 8); i += kWarpLanes) {
        const int s = i / (kHeadDim / 8), d = i % (kHeadDim / 8) * 8;
        const int64_t offset = __shfl_sync(kAllLanes, my_offset, s);
        copy_async16(
            values + s * kPitch + d,
            static_cast<const __nv_bfloat16*>(cache.values) + (offset >= 0 ? offset + d : 0),
            offset >= 0);
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
                     reinterpret_cast<const float*>(shared + w * kWarpBytes)[i * kHeadDim + d];
          }
          partials.values[to * kHeadDim + d] = value;
        }
        if (lane == 0) partials.scales[to] = {top, total};
      }
      __syncthreads();
    }
  }
}

/// A block for each row and head, a thread for each element of the head: parts in ascending order.
__global__ void attention_combine_kernel(const __grid_constant__ AttentionArgs args) {
  wait_for_earlier_work();
  let_next_kernel_start();
  const int head = blockIdx.x, row = blockIdx.y;
  const int parts = parts_of(args.slots[row] + 1);
  const Partials partials(args);
  const int64_t vector = static_cast<int64_t>(row) * args.heads + head;
  const float2* scales = partials.scales + vector * partials.parts;
  const float* values = partials.values + vector * partials.parts * args.cache.head_dim;
  float top = -INFINITY;
#pragma unroll 4
  for (int part = 0; part < parts; ++part) top = fmaxf(top, scales[part].x);
  float total = 0, value = 0;
#pragma unroll 4
  for (int part = 0; part < parts; ++part) {
    const float weight = exp2f(scales[part].x - top);
    total = fmaf(weight, scales[part].y, total);
    value =
        fmaf(weight, values[static_cast<int64_t>(part) * args.cache.head_dim + threadIdx.x], value);
  }
  static_cast<__nv_bfloat16*>(args.out)[vector * args.cache.head_dim + threadIdx.x] =
      __float2bfloat16_rn(value / total);
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
  constexpr int kBlocksPerMultiprocessor = 4;
  const int most =
      launch.multiprocessors * kBlocksPerMultiprocessor / (args.cache.kv_heads * tiles);
  const int columns = parts < most ? parts : most < 1 ? 1 : most;
  const dim3 grid(static_cast<unsigned>(columns), static_cast<unsigned>(args.cache.kv_heads),
                  static_cast<unsigned>(tiles));
  const cudaError_t error = for_head_dim(args.cache.head_dim, [&](auto size) {
    constexpr int kHeadDim = decltype(size)::value;
    constexpr int kBytes = kPartWarps * kWarpSlots * (kHeadDim + 8) * 2;
    const cudaError_t attribute = cudaFuncSetAttribute(
        attention_part_kernel<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (attribute != cudaSuccess) return attribute;
    return launch_between_matmuls(attention_part_kernel<kHeadDim>, grid,
                                  dim3(kPartWarps * kWarpLanes), kBytes, launch, args);
  });
  if (error != cudaSuccess) return error;
  return launch_between_matmuls(
      attention_combine_kernel,
      dim3(static_cast<unsigned>(args.heads), static_cast<unsigned>(args.rows)),
      dim3(static_cast<unsigned>(args.cache.head_dim)), 0, launch, args);
}

}  // namespace tandem::kernels
