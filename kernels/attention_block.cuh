#pragma once

#include "attention_common.cuh"

namespace tandem::kernels {

// What a block of the decode attention does with its share of an item (attention_decode.cu): loads,
// rotates, multiplies and adds up.

constexpr int kWarpSlots = kWarpLanes;
constexpr int kSlotTiles = kWarpSlots / 8;
constexpr int kTileRows = 16;
constexpr uint32_t kAllLanes = 0xffffffffu;

constexpr int kClusterBlocks = blocks_of_part(kCapability);

/// What a quarter of a multiprocessor has left for a thread beside three warps of a matmul's block.
constexpr int most_registers(int head_dim) {
  constexpr int kOfAll = 512, kOfMatmul = 3 * 96;
  return (kOfAll - kOfMatmul) / (block_warps(head_dim) / 4);
}
/// Parts of a full cache, each of so many blocks.
constexpr int most_parts(const CacheArgs& cache, int blocks) {
  return parts_of(cache.max_pages * cache.page_tokens, block_slots(cache.head_dim) * blocks);
}

/// A block's shared memory: each warp's values, where its sums come later; the tile's queries; the
/// keys of this pass.
template <int kHeadDim>
struct AttentionLayout {
  static constexpr int kPitch = kHeadDim + 8;  // of values (16 bits) and sums (32 bits)
  static constexpr int kWarpBytes = kWarpSlots * kPitch * 2;
  static_assert(kWarpBytes >= kTileRows * kPitch * 4);
  static constexpr int kVectorPitch = kHeadDim % 64 == 0 ? kHeadDim + 32 : kHeadDim;
  static constexpr int kQueries = block_warps(kHeadDim) * kWarpBytes;
  static constexpr int kKeys = kQueries + kTileRows * kVectorPitch * 2;
  static constexpr int kBytes = kKeys + kMaxDecodeRows * kVectorPitch * 2;
};

/// Partial sums: weighted values (vectors, parts, head_dim), maximum and weight sum.
struct AttentionPartials {
  float* values;
  float2* scales;
  int parts;
  __device__ explicit AttentionPartials(const AttentionArgs& args)
      : values(args.partials), parts(most_parts(args.cache, kClusterBlocks)) {
    scales = reinterpret_cast<float2*>(values + static_cast<int64_t>(args.rows) * args.heads *
                                                    parts * args.cache.head_dim);
  }
};

__device__ __forceinline__ float power_of_two(float exponent) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
  return power;
}

/// What is still to be done with q and k of the pass.
enum class Rotation { kDone, kRotates, kNormsAndRotates };

/// The block's number in its cluster.
__device__ __forceinline__ int cluster_rank() {
  return static_cast<int>(blockIdx.x % kClusterBlocks);
}
/// Every thread of the cluster arrives; what they wrote to shared memory is visible to all of them
/// afterwards.
__device__ __forceinline__ void sync_cluster() {
#if __CUDA_ARCH__ >= 900
  // Of shared memory alone: a plain release would wait for what went to the cache, too.
  asm volatile("fence.release.sync_restrict::shared::cta.cluster;" ::: "memory");
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
  asm volatile("fence.acquire.sync_restrict::shared::cluster.cluster;" ::: "memory");
#endif
}
/// Every thread of the cluster has read what it wanted of the other block.
__device__ __forceinline__ void leave_cluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
  asm volatile("barrier.cluster.wait;" ::: "memory");
#endif
}
/// Address of the place in block `rank`'s shared memory that `place` is in this one's.
__device__ __forceinline__ uint32_t cluster_address(const void* place, int rank) {
  uint32_t address = shared_address(place);
#if __CUDA_ARCH__ >= 900
  asm("mapa.shared::cluster.u32 %0, %0, %1;" : "+r"(address) : "r"(rank));
#endif
  return address;
}
__device__ __forceinline__ float2 load_from_cluster(uint32_t address) {
  float2 value;
#if __CUDA_ARCH__ >= 900
  asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
#else
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
#endif
               : "=f"(value.x), "=f"(value.y)
               : "r"(address)
               : "memory");
  return value;
}

/// The rows of the pass, in shared memory.
struct PassRows {
  int slot[kMaxDecodeRows], sequence[kMaxDecodeRows];
  int place[kMaxDecodeRows];  ///< the slot's cache row for kv head 0
};

struct AttentionItem {
  int kv_head, tile;
  int vectors;  ///< of the tile
  int begin;    ///< first slot of the part
};

template <int kHeadDim, Rotation kRotation>
struct AttentionBlock {
  using Shared = AttentionLayout<kHeadDim>;
  static constexpr int kWarps = block_warps(kHeadDim);
  static constexpr int kSlots = block_slots(kHeadDim);
  static constexpr int kPart = kSlots * kClusterBlocks;
  static constexpr bool kAppends = kRotation != Rotation::kDone;
  static constexpr int kHalf = kHeadDim / 2;
  static constexpr int kUnits = kHeadDim / 8;  // of a head, four pairs each

  const AttentionArgs& args;
  const PassRows& rows;
  unsigned char* shared;
  int warp, lane, group;

  __device__ __forceinline__ const __nv_bfloat16* head_of(int row, int head) const {
    const int heads = args.heads + 2 * args.cache.kv_heads;
    return static_cast<const __nv_bfloat16*>(args.qkv) +
           (static_cast<int64_t>(row) * heads + head) * kHeadDim;
  }
  __device__ __forceinline__ __nv_bfloat16* cached(void* cache, int row) const {
    return static_cast<__nv_bfloat16*>(cache) + static_cast<int64_t>(row) * kHeadDim;
  }
  __device__ __forceinline__ __nv_bfloat16* values(int warp) const {
    return reinterpret_cast<__nv_bfloat16*>(shared + warp * Shared::kWarpBytes);
  }
  __device__ __forceinline__ float* sums(int warp) const {
    return reinterpret_cast<float*>(shared + warp * Shared::kWarpBytes);
  }
  __device__ __forceinline__ __nv_bfloat16* query(int vector) const {
    return reinterpret_cast<__nv_bfloat16*>(shared + Shared::kQueries) +
           vector * Shared::kVectorPitch;
  }
  __device__ __forceinline__ __nv_bfloat16* new_key(int row) const {
    return reinterpret_cast<__nv_bfloat16*>(shared + Shared::kKeys) + row * Shared::kVectorPitch;
  }
  /// Every warp reads the slots; the first one brings the rows to shared memory.
  /// @return the last slot of all
  __device__ __forceinline__ int read_rows(PassRows& to) const {
    static_assert(kMaxDecodeRows <= kWarpLanes);
    int slot = -1;
    if (lane < args.rows) {
      slot = __ldcg(args.slots + lane);
      if (warp == 0) {
        const int sequence = __ldcg(args.sequences + lane);
        to.slot[lane] = slot;
        to.sequence[lane] = sequence;
        to.place[lane] = cache_row(args.cache, sequence, 0, slot);
      }
    }
    return __reduce_max_sync(kAllLanes, slot);
  }

  /// The row of this pass that a slot belongs to, or -1.
  __device__ __forceinline__ int new_row_at(int slot, int sequence, int last_slot) const {
    int found = -1;
    for (int row = 0; kAppends && slot <= last_slot && row < args.rows; ++row) {
      if (rows.slot[row] == slot && rows.sequence[row] == sequence) found = row;
    }
    return found;
  }

  static constexpr int kNoRow = -1;   // beyond the last slot: zeros
  static constexpr int kNewRow = -2;  // of this pass: not in the cache yet

  /// Keys to registers, values to shared memory.
  /// @param my_row the cache row of this lane's slot
  __device__ __forceinline__ void load_cached(int my_row, uint4 (&k)[kSlotTiles][kHeadDim / 32]) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int j = 0; j < kSlotTiles; ++j) {
      const int row = __shfl_sync(kAllLanes, my_row, j * 8 + g);
      const __nv_bfloat16* key = cached(args.cache.keys, row) + 8 * t;
#pragma unroll
      for (int d = 0; d < kHeadDim / 32; ++d) {
        k[j][d] = row >= 0 ? *reinterpret_cast<const uint4*>(key + 32 * d) : uint4{0, 0, 0, 0};
      }
    }
    for (int i = lane; i < kWarpSlots * kUnits; i += kWarpLanes) {
      const int s = i / kUnits, d = i % kUnits * 8;
      const int row = __shfl_sync(kAllLanes, my_row, s);
      if (row == kNewRow) continue;
      copy_async16(values(warp) + s * Shared::kPitch + d,
                   cached(args.cache.values, max(row, 0)) + d, row >= 0);
    }
    copy_async_commit();
  }

  /// What the pass still owes a head of q or k, whose units neighbouring lanes hold.
  __device__ __forceinline__ void turn(PairUnit& pairs, int row, const float* norm, int unit) {
    if constexpr (kRotation == Rotation::kNormsAndRotates) {
      static_assert(kWarpLanes % kUnits == 0);
      constexpr uint32_t kHeadLanes = kAllLanes >> (kWarpLanes - kUnits);
      const uint32_t lanes = kHeadLanes << (lane - unit);
      float squares = pairs.squares();
#pragma unroll
      for (int offset = kUnits / 2; offset > 0; offset /= 2) {
        squares += __shfl_xor_sync(lanes, squares, offset);
      }
      pairs.normalize(head_norm_factor(squares, kHeadDim, args.eps), norm, kHalf, unit);
    }
    if constexpr (kAppends) {
      pairs.rotate(args.angles + static_cast<int64_t>(row) * kHeadDim, kHalf, unit);
    }
  }

  /// The tile's queries to shared memory, rotated; so are the keys of this pass among the block's
  /// slots, and their values to their warps.
  __device__ __forceinline__ void stage(const AttentionItem& item, int sequence, int begin,
                                        int last_slot) {
    const int query_units = item.vectors * kUnits;
    const int units = query_units + (kAppends ? args.rows * kUnits : 0);
    for (int first = warp * kWarpLanes; first < units; first += kWarps * kWarpLanes) {
      const int at = first + lane, unit = at % kUnits;
      if (at < query_units) {
        const int vector = item.tile * kTileRows + at / kUnits;
        const int row = vector / group;
        PairUnit q(head_of(row, item.kv_head * group + vector % group), kHalf, unit);
        turn(q, row, args.q_norm, unit);
        q.store(query(at / kUnits), kHalf, unit);
      } else if (at < units) {
        const int row = (at - query_units) / kUnits;
        const int place = rows.slot[row] - begin;
        if (rows.sequence[row] == sequence && place >= 0 && place < kSlots &&
            rows.slot[row] <= last_slot) {
          append(item, row, place, unit);
        }
      }
    }
  }

  /// The tile that a row begins in also brings its key and value to the cache, where nobody else
  /// reads them in this pass.
  /// @param place the row's slot, from the block's first one on
  __device__ __forceinline__ void append(const AttentionItem& item, int row, int place, int unit) {
    const auto* from = reinterpret_cast<const uint4*>(
        head_of(row, args.heads + args.cache.kv_heads + item.kv_head));
    const uint4 value = __ldcg(from + unit);
    PairUnit key(head_of(row, args.heads + item.kv_head), kHalf, unit);
    turn(key, row, args.k_norm, unit);
    key.store(new_key(row), kHalf, unit);
    auto* to = values(place / kWarpSlots) + place % kWarpSlots * Shared::kPitch;
    reinterpret_cast<uint4*>(to)[unit] = value;
    if (row * group / kTileRows != item.tile) return;
    const int cache_row = rows.place[row] + item.kv_head * args.cache.page_tokens;
    key.store(cached(args.cache.keys, cache_row), kHalf, unit);
    reinterpret_cast<uint4*>(cached(args.cache.values, cache_row))[unit] = value;
  }

  /// The keys of this pass among this warp's slots.
  __device__ __forceinline__ void take_new_keys(int my_new_row,
                                                uint4 (&k)[kSlotTiles][kHeadDim / 32]) {
    if (!__any_sync(kAllLanes, my_new_row >= 0)) return;
#pragma unroll
    for (int j = 0; j < kSlotTiles; ++j) {
      const int row = __shfl_sync(kAllLanes, my_new_row, j * 8 + lane / 4);
      if (row < 0) continue;
#pragma unroll
      for (int d = 0; d < kHeadDim / 32; ++d) {
        k[j][d] = *reinterpret_cast<const uint4*>(new_key(row) + 32 * d + lane % 4 * 8);
      }
    }
  }

  /// p = q k^T: vectors g and g + 8 of the tile, slots 8 j + 2 t and the next.
  __device__ __forceinline__ void multiply_keys(const AttentionItem& item,
                                                const uint4 (&k)[kSlotTiles][kHeadDim / 32],
                                                float (&p)[kSlotTiles][4]) {
    const int g = lane / 4, t = lane % 4;
    const auto operand = [&](int vector, int d) {
      return vector < item.vectors ? *reinterpret_cast<const uint4*>(query(vector) + 32 * d + 8 * t)
                                   : uint4{0, 0, 0, 0};
    };
#pragma unroll
    for (int d = 0; d < kHeadDim / 32; ++d) {
      const uint4 low = operand(g, d), high = operand(g + 8, d);
      const uint32_t even[4] = {low.x, high.x, low.y, high.y};
      const uint32_t odd[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
      for (int j = 0; j < kSlotTiles; ++j) mma_bf16(p[j], even, k[j][d].x, k[j][d].y);
#pragma unroll
      for (int j = 0; j < kSlotTiles; ++j) mma_bf16(p[j], odd, k[j][d].z, k[j][d].w);
    }
  }

  /// Softmax over this warp's slots; a vector that sees none of them keeps -infinity and 0.
  __device__ __forceinline__ void take_weights(int first_slot, const int (&limit)[2],
                                               float (&p)[kSlotTiles][4], float (&largest)[2],
                                               float (&sum)[2]) {
    const float factor = args.scale * kLog2E;
    float top[2];
#pragma unroll
    for (int j = 0; j < kSlotTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int slot = first_slot + j * 8 + 2 * (lane % 4) + e % 2;
        p[j][e] = slot <= limit[e / 2] ? p[j][e] * factor : -INFINITY;
        largest[e / 2] = fmaxf(largest[e / 2], p[j][e]);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      largest[i] = quad_max(largest[i]);
      top[i] = largest[i] == -INFINITY ? 0.0f : largest[i];
    }
#pragma unroll
    for (int j = 0; j < kSlotTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        p[j][e] = power_of_two(p[j][e] - top[e / 2]);
        sum[e / 2] += p[j][e];
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) sum[i] = quad_sum(sum[i]);
  }

  /// A warp's weighted values to where its values were.
  __device__ __forceinline__ void store_sums(const AttentionItem& item,
                                             const float (&o)[kHeadDim / 8][4]) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (g + 8 * i >= item.vectors) continue;
      float* mine = sums(warp) + (g + 8 * i) * Shared::kPitch + 2 * t;
#pragma unroll
      for (int d = 0; d < kHeadDim / 8; ++d) {
        *reinterpret_cast<float2*>(mine + d * 8) = {o[d][2 * i], o[d][2 * i + 1]};
      }
    }
  }

  /// Adds up the warps' sums of the tile's vectors, in ascending order: to `out` where the part is
  /// a row's only one.
  /// @param blocks 2: of the whole cluster, each of whose blocks takes half of the work
  __device__ __forceinline__ void add_warps(const AttentionItem& item,
                                            const float2 (*scales)[kTileRows], int my_limit,
                                            int blocks) {
    constexpr int kRun = 2 * kWarpLanes, kRuns = (kHeadDim + kRun - 1) / kRun;
    const int first = blocks == 1 ? warp : warp + cluster_rank() * kWarps;
    for (int task = first; task < item.vectors * kRuns; task += blocks * kWarps) {
      const int i = task / kRuns, d = task % kRuns * kRun + 2 * lane;
      const int last = __shfl_sync(kAllLanes, my_limit, i);
      if (last < item.begin || d >= kHeadDim) continue;
      float top = -INFINITY, total = 0;
      float2 value = {0, 0};
      for (int b = 0; b < blocks; ++b) {
        const int rank = blocks == 1 ? cluster_rank() : b;
        const uint32_t scale_from = cluster_address(&scales[0][i], rank);
        const uint32_t part_from = cluster_address(sums(0) + i * Shared::kPitch + d, rank);
        float2 scale[kWarps], part[kWarps];
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          scale[w] = load_from_cluster(scale_from + w * kTileRows * 8);
          part[w] = load_from_cluster(part_from + w * Shared::kWarpBytes);
        }
        const float before = top;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) top = fmaxf(top, scale[w].x);
        const float kept = power_of_two(before - top);
        total *= kept, value.x *= kept, value.y *= kept;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          const float weight = power_of_two(scale[w].x - top);
          total += weight * scale[w].y;
          value.x += weight * part[w].x;
          value.y += weight * part[w].y;
        }
      }
      const int vector = item.tile * kTileRows + i;
      const int64_t index =
          static_cast<int64_t>(vector / group) * args.heads + item.kv_head * group + vector % group;
      if (last < kPart) {
        const float inverse = 1.0f / total;
        auto* out = static_cast<__nv_bfloat16*>(args.out) + index * kHeadDim + d;
        *reinterpret_cast<uint32_t*>(out) = pack_bf16(value.x * inverse, value.y * inverse);
        continue;
      }
      const AttentionPartials partials(args);
      const int64_t to = index * partials.parts + item.begin / kPart;
      *reinterpret_cast<float2*>(partials.values + to * kHeadDim + d) = value;
      if (d == 0) partials.scales[to] = {top, total};
    }
  }
};

}  // namespace tandem::kernels
