#include "attention_block.cuh"

namespace tandem::kernels {
namespace {

// Attention of up to 16 rows over the paged cache (split over the sequence as in Flash-Decoding).
// Bound: the keys and values once for every 16 query vectors of a kv head; for short contexts the
// latency of a chain that begins when q, k and v are there.
// Work: an item is one kv head, a tile of 16 query vectors (row by row, the heads of the group
// inside) and a part of the slots; clusters of two blocks take items in turn, each block half of
// the part and each warp 32 of its slots. All threads share in rotating what is new, a warp
// multiplies alone, and the warps' sums meet in shared memory, the other block's too where it has
// any. Sums of several parts go to `partials`; the cluster that finishes a tile's last item adds up
// the parts of its rows. Everything is added in ascending order, and a query vector's result
// depends on its own slots alone: values behind them, which are finite, have weight 0.
//
// There is a block for each multiprocessor, and no two fit beside a block of the matmul in front.
// So each multiprocessor holds one when the next matmul's blocks start, which then find one place
// on each.

constexpr int kMostItemsPerBlock = 4;  // beyond, multiprocessors hold several blocks
constexpr int kSharedBytes = 64 << 10;

/// Adds up the parts of a warp's vectors, in ascending order.
/// @param vectors row * heads + head
/// @param parts   of each vector; 0 leaves it alone
template <int kHeadDim, int kVectors>
__device__ __forceinline__ void combine_parts(const AttentionArgs& args,
                                              const AttentionPartials& partials,
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
          const float weight = power_of_two(scale[p][v].x - top[v]);
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
    const float inverse = 1.0f / total[v];
    auto* out = static_cast<__nv_bfloat16*>(args.out) + int64_t{vectors[v]} * kHeadDim + lane;
#pragma unroll
    for (int d = 0; d < kMine; ++d) {
      out[d * kWarpLanes] = __float2bfloat16_rn(value[v][d] * inverse);
    }
  }
}

/// Counts an item of `count` as finished. Whether it was the last: then what the others left in
/// `partials` is visible.
__device__ __forceinline__ bool is_last_of(int* finished, int count, int* shared_finished) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    *shared_finished = atomicAdd(finished, 1) + 1;
    if (*shared_finished == count) *finished = 0;
    __threadfence();
  }
  __syncthreads();
  return *shared_finished == count;
}

/// @tparam kRotation unless done, k and v are appended at the rows' slots, too
template <int kHeadDim, Rotation kRotation>
__global__ __maxnreg__(most_registers(kHeadDim)) void attention_decode_kernel(
    const __grid_constant__ AttentionArgs args) {
  using Work = AttentionBlock<kHeadDim, kRotation>;
  constexpr bool kAppends = Work::kAppends;
  constexpr int kWarps = Work::kWarps, kSlots = Work::kSlots, kPart = Work::kPart;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float2 shared_scales[kWarps][kTileRows];
  __shared__ PassRows rows;
  __shared__ int shared_finished;

  let_next_kernel_start();
  // With kAppends all that is read before the wait dates from before this pass, which begins with
  // kernels that let no later one start before they have waited themselves.
  if (!kAppends) wait_for_earlier_work();
  const CacheArgs& cache = args.cache;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int g = lane / 4;
  const int group = args.heads / cache.kv_heads;
  const int vectors = args.rows * group;
  const int tiles = (vectors + kTileRows - 1) / kTileRows;
  Work work{args, rows, shared, warp, lane, group};

  const int last_slot_of_all = work.read_rows(rows);
  __syncthreads();
  const int items = parts_of(last_slot_of_all + 1, kPart) * cache.kv_heads * tiles;
  for (int number = blockIdx.x / kClusterBlocks; number < items;
       number += gridDim.x / kClusterBlocks) {
    const int tile = number / cache.kv_heads % tiles;
    const int part = number / (cache.kv_heads * tiles);
    const AttentionItem item = {number % cache.kv_heads, tile,
                                min(kTileRows, vectors - tile * kTileRows), part * kPart};
    // Lanes 0 … 15 each know one vector of the tile; the others ask them.
    const bool is_vector = lane < item.vectors;
    const int my_row = is_vector ? (tile * kTileRows + lane) / group : 0;
    const int my_sequence = rows.sequence[my_row];
    const int my_slot = is_vector ? rows.slot[my_row] : -1;
    const int tile_parts = parts_of(__reduce_max_sync(kAllLanes, my_slot) + 1, kPart);
    if (part >= tile_parts) continue;

    uint32_t left = __ballot_sync(kAllLanes, is_vector);
    while (left != 0) {
      // Vectors of one sequence are handled together.
      const int sequence = __shfl_sync(kAllLanes, my_sequence, __ffs(left) - 1);
      const bool taken = is_vector && my_sequence == sequence;
      left &= ~__ballot_sync(kAllLanes, taken);
      const int my_limit = taken ? my_slot : -1;
      const int last_slot = __reduce_max_sync(kAllLanes, my_limit);
      if (item.begin > last_slot) continue;
      const int begin = item.begin + cluster_rank() * kSlots;
      const int blocks = kClusterBlocks == 2 && item.begin + kSlots <= last_slot ? 2 : 1;
      if (blocks == 1 && cluster_rank() != 0) continue;
      const int first_slot = begin + warp * kWarpSlots;
      const int my_new_row = work.new_row_at(first_slot + lane, sequence, last_slot);
      const int my_cache_row = my_new_row >= 0 ? Work::kNewRow
                               : first_slot + lane <= last_slot
                                   ? cache_row(cache, sequence, item.kv_head, first_slot + lane)
                                   : Work::kNoRow;

      // What the cache holds from before this pass does not have to wait for the work in front.
      __syncthreads();  // another item's sums have been read
      uint4 k[kSlotTiles][kHeadDim / 32];
      work.load_cached(my_cache_row, k);
      if constexpr (kAppends) wait_for_earlier_work();
      work.stage(item, sequence, begin, last_slot);
      __syncthreads();
      if constexpr (kAppends) work.take_new_keys(my_new_row, k);

      float p[kSlotTiles][4] = {};
      work.multiply_keys(item, k, p);
      float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
      const int limits[2] = {__shfl_sync(kAllLanes, my_limit, g),
                             __shfl_sync(kAllLanes, my_limit, g + 8)};
      work.take_weights(first_slot, limits, p, largest, sum);
      copy_async_wait<0>();
      __syncwarp();
      float o[kHeadDim / 8][4] = {};
      multiply_values<kHeadDim, kSlotTiles>(o, p, work.values(warp), Work::Shared::kPitch, lane);
      __syncwarp();
      work.store_sums(item, o);
      if (lane % 4 == 0) {
        shared_scales[warp][g] = {largest[0], sum[0]};
        shared_scales[warp][g + 8] = {largest[1], sum[1]};
      }
      if (blocks == 2) {
        sync_cluster();
      } else {
        __syncthreads();
      }
      work.add_warps(item, shared_scales, my_limit, blocks);
      if (blocks == 2) {
        if (tile_parts > 1) __threadfence();  // the first block counts for both
        leave_cluster();
      }
    }

    if (tile_parts == 1 || cluster_rank() != 0) continue;
    const AttentionPartials partials(args);
    int* const finished = args.finished + tile * cache.kv_heads + item.kv_head;
    if (!is_last_of(finished, tile_parts, &shared_finished)) continue;
    constexpr int kVectors = kTileRows / kWarps;
    int indices[kVectors], parts[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int i = warp + v * kWarps, vector = tile * kTileRows + i;
      const int row_parts = parts_of(__shfl_sync(kAllLanes, my_slot, i) + 1, kPart);
      parts[v] = i < item.vectors && row_parts > 1 ? row_parts : 0;
      indices[v] = vector / group * args.heads + item.kv_head * group + vector % group;
    }
    combine_parts<kHeadDim>(args, partials, indices, parts, tile_parts, lane);
  }
  if constexpr (kAppends) wait_for_earlier_work();
}

}  // namespace

bool attention_decode_appends(int head_dim) {
  return head_dim == 64 || head_dim == 128 || head_dim == 256;
}

cudaError_t attention_decode(const AttentionArgs& args, Launch launch) {
  if (args.heads > kMostAttentionHeads) return cudaErrorInvalidValue;
  // Of a tile: the cache is seldom full. Beyond, memory is kept busier by more blocks.
  const int blocks = most_parts(args.cache, 1) * args.cache.kv_heads;
  const bool few = blocks <= launch.multiprocessors * kMostItemsPerBlock;
  const int cluster = blocks_of_part(launch.capability);
  const int clusters =
      (launch.multiprocessors * (few ? 1 : kMostItemsPerBlock) + cluster - 1) / cluster;
  const auto run = [&](auto kernel, int bytes, int most_bytes) {
    // The same for every launch: other threads launch the kernel, too.
    const cudaError_t attribute =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_bytes);
    if (attribute != cudaSuccess) return attribute;
    return launch_clusters_between_matmuls(
        kernel, dim3(static_cast<unsigned>(clusters * cluster)),
        dim3(static_cast<unsigned>(block_warps(args.cache.head_dim) * kWarpLanes)),
        static_cast<size_t>(bytes), launch, cluster, args);
  };
  return for_head_dim(args.cache.head_dim, [&](auto size) {
    constexpr int kHeadDim = decltype(size)::value;
    constexpr int kNeeded = AttentionLayout<kHeadDim>::kBytes;
    constexpr int kMost = kNeeded < kSharedBytes ? kSharedBytes : kNeeded;
    const int bytes = few && launch.capability >= 90 ? kMost : kNeeded;
    if constexpr (kHeadDim % 64 == 0) {
      if (args.q_norm != nullptr) {
        return run(attention_decode_kernel<kHeadDim, Rotation::kNormsAndRotates>, bytes, kMost);
      }
      if (args.angles != nullptr) {
        return run(attention_decode_kernel<kHeadDim, Rotation::kRotates>, bytes, kMost);
      }
    }
    return run(attention_decode_kernel<kHeadDim, Rotation::kDone>, bytes, kMost);
  });
}

}  // namespace tandem::kernels
