#pragma once

#include "weight_formats.cuh"

namespace tandem::kernels {

// The stream of weights through shared memory of matmul_rows.cuh: what a block reads in which
// order, and the ring between the copies and the warps that multiply.

constexpr int kWarps = 8;
/// The warps that multiply, one that copies and one for the norm in front.
constexpr int kRowsThreads = (kWarps + 2) * kWarpLanes;
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kStages = stages_of(kCapability);
constexpr int kReducePitch = 20;  // floats between rows of a panel's sums: no bank conflicts
constexpr int kReduceBytes = kWarps * kMaxDecodeRows * kReducePitch * 4;

/// Chunks that share a stage of the ring: about 16 KiB. They are of as many panels, or, where a
/// block has fewer, follow each other in a panel.
constexpr int chunks_per_stage(Packed format) {
  return format == Packed::kInt4 ? 4 : format == Packed::kFp8 ? 2 : 1;
}
constexpr int chunk_bytes(Packed format) { return kWarps * block_bytes(format); }
constexpr int stage_bytes(Packed format) { return chunks_per_stage(format) * chunk_bytes(format); }
/// Panels that share the rows' values in registers.
constexpr int panels_per_group(int row_tiles) { return row_tiles == 1 ? 8 : 4; }
constexpr int ring_bytes(Packed format, int stages = kStages) {
  return stages * stage_bytes(format);
}
/// Blocks of 64 inputs that a warp fetches ahead, for eight rows (half as many for sixteen).
constexpr int kInputsAhead = 4;
constexpr int kRowTileBytes = 8 * kBlockInputs * 2;
constexpr int kInputBytes = kWarps * kInputsAhead * kRowTileBytes;
constexpr int shared_bytes(Packed format, int stages) {
  return ring_bytes(format, stages) + kReduceBytes + kInputBytes + kMaxDecodeRows * 4 +
         2 * stages * 8;
}

__device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
/// What is read once and should push nothing else out of L2.
__device__ __forceinline__ uint64_t evict_first_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ void bulk_copy(uint32_t shared, const void* global, int bytes,
                                          uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1], %2, [%3], %4;" ::"r"(shared),
      "l"(global), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

/// The panels of a block, in groups of at most `size`, as even as they go.
struct Groups {
  int first, panels, count;
  __device__ __forceinline__ Groups(int64_t all, int size) {
    const auto begin = all * blockIdx.x / gridDim.x;
    const auto end = all * (blockIdx.x + 1) / gridDim.x;
    first = static_cast<int>(begin);
    panels = static_cast<int>(end - begin);
    count = (panels + size - 1) / size;
  }
  __device__ __forceinline__ int begin(int group) const { return first + panels * group / count; }
};

/// Walks over a block's weights in the order of their use: group by group of panels, stage by stage
/// of inputs, and the panels of the group inside, kPanels in a stage.
template <Packed kFormat, int kPanels>
class Walk {
 public:
  /// Chunks of a panel in a stage, and their blocks.
  static constexpr int kDepth = chunks_per_stage(kFormat) / kPanels;
  static constexpr int kBlocks = kDepth * kWarps;

  __device__ __forceinline__ Walk(const void* panels, const Groups& groups, int blocks)
      : source_(static_cast<const unsigned char*>(panels)),
        pitch_(static_cast<int64_t>(blocks) * block_bytes(kFormat)),
        groups_(groups),
        blocks_(blocks) {
    start_group();
  }
  __device__ __forceinline__ bool done() const { return group_ == groups_.count; }
  /// Panels of this stage, their blocks, and where panel q's lie.
  __device__ __forceinline__ int panels() const { return min(kPanels, left_); }
  __device__ __forceinline__ int blocks() const { return min(kBlocks, blocks_ - block_); }
  __device__ __forceinline__ const unsigned char* chunk(int q) const { return from_ + q * pitch_; }

  __device__ __forceinline__ void next() {
    from_ += kPanels * pitch_;
    left_ -= kPanels;
    if (left_ > 0) return;
    block_ += kBlocks;
    column_ += kBlocks * block_bytes(kFormat);
    from_ = column_;
    left_ = group_panels_;
    if (block_ < blocks_) return;
    ++group_;
    start_group();
  }

 private:
  __device__ __forceinline__ void start_group() {
    if (done()) return;
    const int first = groups_.begin(group_);
    group_panels_ = groups_.begin(group_ + 1) - first;
    left_ = group_panels_;
    block_ = 0;
    column_ = source_ + first * pitch_;
    from_ = column_;
  }

  const unsigned char* source_;
  int64_t pitch_;  // bytes of a panel
  const Groups& groups_;
  int blocks_;
  int group_ = 0, block_ = 0, group_panels_ = 0, left_ = 0;
  const unsigned char* column_ = nullptr;
  const unsigned char* from_ = nullptr;
};

/// The ring between the copies and the warps that multiply.
template <Packed kFormat, int kPanels>
class Ring {
 public:
  static constexpr int kBlockBytes = block_bytes(kFormat);
  static constexpr int kChunkBytes = chunk_bytes(kFormat);
  static constexpr int kStageBytes = stage_bytes(kFormat);
  /// Between a stage's panels.
  static constexpr int kPanelBytes = kStageBytes / kPanels;

  __device__ __forceinline__ Ring(unsigned char* shared, const Walk<kFormat, kPanels>& walk,
                                  int warp, int lane)
      : ring_(shared),
        full_(shared_address(shared + ring_bytes(kFormat) + kReduceBytes + kInputBytes +
                             kMaxDecodeRows * 4)),
        walk_(walk),
        warp_(warp),
        lane_(lane) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0) {
      for (int s = 0; s < kStages; ++s) {
        barrier_init(full_ + s * 8, 1);
        barrier_init(empty(s), kWarps);
      }
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
#else
    if (warp < kWarps) {
      for (int s = 0; s < kStages; ++s) copy_share(s);
    }
#endif
  }

  /// The copying warp's whole work.
  __device__ __forceinline__ void copy_all() {
#if __CUDA_ARCH__ >= 900
    if (lane_ != 0) return;
    const uint64_t policy = evict_first_policy();
    for (uint32_t parity = 1; !walk_.done(); walk_.next()) {
      barrier_wait(empty(stage_), parity);
      const uint32_t barrier = full_ + stage_ * 8;
      const uint32_t to = shared_address(ring_) + stage_ * kStageBytes;
      const int panels = walk_.panels(), bytes = walk_.blocks() * kBlockBytes;
      barrier_expect(barrier, panels * bytes);
      for (int q = 0; q < panels; ++q) {
        bulk_copy(to + q * kPanelBytes, walk_.chunk(q), bytes, barrier, policy);
      }
      if (++stage_ == kStages) stage_ = 0, parity ^= 1;
    }
#endif
  }

  /// This warp's blocks in the oldest stage, when they have arrived: kChunkBytes apart in a panel.
  __device__ __forceinline__ const unsigned char* front() {
#if __CUDA_ARCH__ >= 900
    barrier_wait(full_ + stage_ * 8, parity_);
#else
    copy_async_wait<kStages - 1>();
    __syncwarp();
#endif
    return ring_ + stage_ * kStageBytes + warp_ * kBlockBytes;
  }

  /// Gives this warp's part of the oldest stage back.
  __device__ __forceinline__ void pop() {
    __syncwarp();
#if __CUDA_ARCH__ >= 900
    if (lane_ == 0) barrier_arrive(empty(stage_));
#else
    copy_share(stage_);
#endif
    if (++stage_ == kStages) stage_ = 0, parity_ ^= 1;
  }

 private:
  __device__ __forceinline__ uint32_t empty(int stage) const {
    return full_ + (kStages + stage) * 8;
  }

#if __CUDA_ARCH__ < 900
  __device__ __forceinline__ void copy_share(int stage) {
    if (!walk_.done()) {
      for (int block = warp_; block < walk_.blocks(); block += kWarps) {
        for (int q = 0; q < walk_.panels(); ++q) {
          unsigned char* to = ring_ + stage * kStageBytes + q * kPanelBytes + block * kBlockBytes;
          for (int i = lane_ * 16; i < kBlockBytes; i += kWarpLanes * 16) {
            copy_async16(to + i, walk_.chunk(q) + block * kBlockBytes + i);
          }
        }
      }
      walk_.next();
    }
    copy_async_commit();
  }
#endif

  unsigned char* ring_;
  uint32_t full_;  // barriers: full ones, then empty ones
  Walk<kFormat, kPanels> walk_;
  int warp_, lane_;
  int stage_ = 0;
  uint32_t parity_ = 0;
};

}  // namespace tandem::kernels
