#pragma once

#include "matmul_epilogue.cuh"

namespace tandem::kernels {

// out = x W^T for 1 … 16 rows.
// Bound: the bytes of W, read once, whatever the number of rows.
// Work: blocks own runs of panels (16 outputs); sixteen warps of a block split the inputs, 64 at a
// time in turn, a chunk of 1024 together. One more warp streams the weights through a ring in
// shared memory, a chunk of a panel at a time (the copy engine takes about 80 cycles for a copy, so
// small ones would bind it); the ring starts to fill before the kernel's inputs exist. The rows'
// part comes from L2 into registers and serves a group of panels. Before compute capability 9.0
// each warp copies its own share of the ring. Sums: tensor cores along a warp's inputs, then the
// warps in ascending order; so a row's bits depend on the shape alone, never on the other rows.

constexpr int kWarps = 16;
constexpr int kRowsThreads = (kWarps + 1) * kWarpLanes;
/// Stages of the ring. Where shared memory allows it more than half a multiprocessor's, so that no
/// multiprocessor takes two blocks of one matmul while another idles, and the small ops between two
/// matmuls still fit beside it.
constexpr int kManyStages = 5, kFewStages = 2;
constexpr int stages_of(int capability) {
  return capability >= 90 && capability < 120 ? kManyStages : kFewStages;
}
#ifdef __CUDA_ARCH__
constexpr int kStages = stages_of(__CUDA_ARCH__ / 10);
#else
constexpr int kStages = kManyStages;
#endif
constexpr int kReduceBytes = 20480;
constexpr int kReducePitch = 20;  // floats between rows of a panel's sums: no bank conflicts

/// Panels whose chunks share a stage of the ring: about 32 KiB.
constexpr int panels_per_stage(Packed format) {
  return format == Packed::kInt4 ? 4 : format == Packed::kFp8 ? 2 : 1;
}
constexpr int chunk_bytes(Packed format) { return kWarps * block_bytes(format); }
constexpr int stage_bytes(Packed format) { return panels_per_stage(format) * chunk_bytes(format); }
/// Panels that share the rows' values in registers.
constexpr int panels_per_group(int row_tiles) { return row_tiles == 1 ? 8 : 4; }
constexpr int ring_bytes(Packed format, int stages = kStages) {
  return stages * stage_bytes(format);
}
constexpr int shared_bytes(Packed format, int stages) {
  return ring_bytes(format, stages) + kReduceBytes + 2 * stages * 8;
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
__device__ __forceinline__ void bulk_copy(uint32_t shared, const void* global, int bytes,
                                          uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared),
      "l"(global), "r"(bytes), "r"(barrier)
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

/// Walks over a block's weights in the order of their use: group by group of panels, chunk by chunk
/// of inputs, and the panels of the group inside.
template <Packed kFormat>
class Walk {
 public:
  __device__ __forceinline__ Walk(const void* panels, const Groups& groups, int blocks)
      : source_(static_cast<const unsigned char*>(panels)),
        pitch_(static_cast<int64_t>(blocks) * block_bytes(kFormat)),
        groups_(groups),
        blocks_(blocks) {
    start_group();
  }
  __device__ __forceinline__ bool done() const { return group_ == groups_.count; }
  /// Panels of this stage, blocks of this chunk, and where panel q's chunk lies.
  __device__ __forceinline__ int panels() const { return min(panels_per_stage(kFormat), left_); }
  __device__ __forceinline__ int blocks() const { return min(kWarps, blocks_ - block_); }
  __device__ __forceinline__ const unsigned char* chunk(int q) const { return from_ + q * pitch_; }

  __device__ __forceinline__ void next() {
    from_ += panels_per_stage(kFormat) * pitch_;
    left_ -= panels_per_stage(kFormat);
    if (left_ > 0) return;
    block_ += kWarps;
    column_ += chunk_bytes(kFormat);
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
template <Packed kFormat>
class Ring {
 public:
  static constexpr int kBlockBytes = block_bytes(kFormat);
  static constexpr int kChunkBytes = chunk_bytes(kFormat);
  static constexpr int kStageBytes = stage_bytes(kFormat);

  __device__ __forceinline__ Ring(unsigned char* shared, const Walk<kFormat>& walk, int warp,
                                  int lane)
      : ring_(shared),
        full_(shared_address(shared + ring_bytes(kFormat) + kReduceBytes)),
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
    for (uint32_t parity = 1; !walk_.done(); walk_.next()) {
      barrier_wait(empty(stage_), parity);
      const uint32_t barrier = full_ + stage_ * 8;
      const uint32_t to = shared_address(ring_) + stage_ * kStageBytes;
      const int panels = walk_.panels(), bytes = walk_.blocks() * kBlockBytes;
      barrier_expect(barrier, panels * bytes);
      for (int q = 0; q < panels; ++q) {
        bulk_copy(to + q * kChunkBytes, walk_.chunk(q), bytes, barrier);
      }
      if (++stage_ == kStages) stage_ = 0, parity ^= 1;
    }
#endif
  }

  /// This warp's blocks in the oldest stage, when they have arrived; kChunkBytes apart.
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
      if (warp_ < walk_.blocks()) {
        for (int q = 0; q < walk_.panels(); ++q) {
          unsigned char* to = ring_ + stage * kStageBytes + q * kChunkBytes + warp_ * kBlockBytes;
          for (int i = lane_ * 16; i < kBlockBytes; i += kWarpLanes * 16) {
            copy_async16(to + i, walk_.chunk(q) + warp_ * kBlockBytes + i);
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
  Walk<kFormat> walk_;
  int warp_, lane_;
  int stage_ = 0;
  uint32_t parity_ = 0;
};

/// Meeting of the warps that multiply.
__device__ __forceinline__ void sync_multipliers() {
  asm volatile("bar.sync 1, %0;" ::"n"(kWarps * kWarpLanes) : "memory");
}

template <Packed kFormat, int kRowTiles, bool kVectors>
__global__ __launch_bounds__(kRowsThreads,
                             1) void matmul_rows_kernel(const __grid_constant__ MatmulArgs args) {
  constexpr int kGroup = panels_per_group(kRowTiles);
  constexpr int kPanels = panels_per_stage(kFormat);
  constexpr int kChunkBytes = chunk_bytes(kFormat);
  constexpr int kRows = 8 * kRowTiles;
  static_assert(kGroup % kPanels == 0);
  extern __shared__ __align__(128) unsigned char shared[];
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int g = lane / 4, t = lane % 4;
  const int blocks = static_cast<int>(blocks_of(args.cols));
  const Groups groups(args.panel_count, kGroup);

  let_next_kernel_start();
  Ring<kFormat> ring(shared, Walk<kFormat>(args.panels, groups, blocks), warp, lane);
  if (warp == kWarps) {
    ring.copy_all();
    return;
  }
  wait_for_earlier_work();

  // inputs[n][h]: row 8 n + g, inputs 32 h + 8 t … + 7 of the warp's current 64
  const auto* x = static_cast<const uint16_t*>(args.x) + g * args.cols + 8 * t;
  const auto load_block = [&](int block, uint4(&inputs)[kRowTiles][2]) {
#pragma unroll
    for (int n = 0; n < kRowTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int64_t input = static_cast<int64_t>(block) * kBlockInputs + 32 * h;
        if constexpr (kVectors) {
          inputs[n][h] = {0, 0, 0, 0};
          if (8 * n + g < args.rows && input + 8 * t < args.cols) {
            inputs[n][h] = __ldcg(reinterpret_cast<const uint4*>(x + 8 * n * args.cols + input));
          }
        } else {
          inputs[n][h] = load_any_inputs(args, 8 * n + g, input + 8 * t);
        }
      }
    }
  };
  uint4 inputs[kRowTiles][2], next_inputs[kRowTiles][2];
  float2 input_sums[kRowTiles];
  load_block(warp, next_inputs);

  for (int group = 0; group < groups.count; ++group) {
    const int first = groups.begin(group);
    const int count = groups.begin(group + 1) - first;
    float sums[kGroup][kRowTiles][4] = {};
    for (int chunk = 0; chunk < blocks; chunk += kWarps) {
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        inputs[n][0] = to_operand<kFormat>(next_inputs[n][0]);
        inputs[n][1] = to_operand<kFormat>(next_inputs[n][1]);
        input_sums[n] = sum_inputs<kFormat>(inputs[n]);
      }
      // behind the last block the next group begins with the first one again
      load_block(chunk + kWarps < blocks ? chunk + kWarps + warp : warp, next_inputs);
#pragma unroll
      for (int p = 0; p < kGroup; p += kPanels) {
        if (p < count) {
          const unsigned char* stage = ring.front();
          // Behind the last input the stage holds old bytes.
          if (chunk + warp < blocks) {
#pragma unroll
            for (int q = 0; q < kPanels; ++q) {
              // A stage may hold fewer panels; what it holds besides goes to sums that nobody
              // reads.
              const unsigned char* data = stage + q * kChunkBytes;
              const WeightBlock<kFormat> weights(data, lane);
              uint32_t a[4][4];
#pragma unroll
              for (int j = 0; j < 4; ++j) weights.tile(j, a[j]);
#pragma unroll
              for (int n = 0; n < kRowTiles; ++n) {
                multiply_block<kFormat>(sums[p + q][n], a, inputs[n], input_sums[n], data, g);
              }
            }
          }
          ring.pop();
        }
      }
    }

    // The warps' sums, panel by panel: thread (row, output) adds them in order.
    constexpr int kPanelFloats = kRows * kReducePitch;
    constexpr int kBuffers = kReduceBytes / (kWarps * kPanelFloats * 4);
    static_assert(kBuffers >= 1);
    auto* reduce = reinterpret_cast<float*>(shared + ring_bytes(kFormat));
    const int row = threadIdx.x / kPanelOutputs, output = threadIdx.x % kPanelOutputs;
    const bool gate = args.epilogue == MatmulEpilogue::kSiluGate;
#pragma unroll
    for (int p = 0; p < kGroup; ++p) {
      if (p < count) {
        float* buffer = reduce + p % kBuffers * kWarps * kPanelFloats;
        float* mine = buffer + warp * kPanelFloats + 2 * t * kReducePitch + g;
#pragma unroll
        for (int n = 0; n < kRowTiles; ++n) {
          float* tile = mine + n * 8 * kReducePitch;
          tile[0] = sums[p][n][0];
          tile[kReducePitch] = sums[p][n][1];
          tile[8] = sums[p][n][2];
          tile[kReducePitch + 8] = sums[p][n][3];
        }
        sync_multipliers();
        if (row < kRows) {
          const float* from = buffer + row * kReducePitch + output;
          float sum = from[0];
#pragma unroll
          for (int w = 1; w < kWarps; ++w) sum += from[w * kPanelFloats];
          const int panel = first + p;
          if constexpr (kFormat == Packed::kFp8) {
            sum *= args.scales[static_cast<int64_t>(panel) * kPanelOutputs + output] * kTwoTo60;
          }
          float up = 0;
          int64_t column;
          if (gate) {
            up = __shfl_down_sync(0xffffffffu, sum, kPanelOutputs / 2);
            column = output < kPanelOutputs / 2
                         ? output_column(args, panel, output, kPanelOutputs / 2)
                         : -1;
          } else {
            column = output_column(args, panel, output, kPanelOutputs);
          }
          if (column >= 0 && row < args.rows) write_output(args, row, column, sum, up);
        }
        if constexpr (kBuffers == 1) sync_multipliers();
      }
    }
    if constexpr (kBuffers > 1) sync_multipliers();
  }
}

template <Packed kFormat>
cudaError_t launch_matmul_rows(const MatmulArgs& args, Launch launch) {
  const int blocks = static_cast<int>(
      args.panel_count < launch.multiprocessors ? args.panel_count : launch.multiprocessors);
  const int bytes = shared_bytes(kFormat, stages_of(launch.capability));
  const auto run = [&](void (*kernel)(MatmulArgs)) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
    return launch_kernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kRowsThreads),
                         static_cast<size_t>(bytes), launch, args);
  };
  if (!has_vector_inputs(args)) return run(matmul_rows_kernel<kFormat, 2, false>);
  return args.rows <= 8 ? run(matmul_rows_kernel<kFormat, 1, true>)
                        : run(matmul_rows_kernel<kFormat, 2, true>);
}

}  // namespace tandem::kernels
