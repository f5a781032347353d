#pragma once

#include "matmul_epilogue.cuh"

namespace tandem::kernels {

// out = x W^T for many rows.
// Bound: tensor cores, 2 rows * inputs * outputs operations.
// Work: a block makes 128 outputs of 128 rows; its four warps 64 x 64 each. 64 inputs at a time of
// both operands pass through a ring in shared memory. Rows vary fastest over the blocks, so that
// blocks that run together share the weights' tile.

constexpr int kPrefillPanels = 8;  // of a block
constexpr int kPrefillRows = 128;
constexpr int kPrefillStages = 3;
constexpr int kPrefillThreads = 128;
constexpr int kWarpPanels = 4;
constexpr int kWarpRowTiles = 8;
constexpr int kInputBytes = kPrefillRows * kBlockInputs * 2;

constexpr int prefill_stage_bytes(Packed format) {
  return kPrefillPanels * block_bytes(format) + kInputBytes;
}

/// Byte offset of 8 inputs of a row in a stage: rows alternate between the halves of a 128-byte
/// line, so that a quarter of a warp touches every bank once.
__device__ __forceinline__ int input_offset(int row, int chunk) {
  return row * (kBlockInputs * 2) + ((chunk ^ ((row & 1) * 4)) * 16);
}

/// What a thread copies into every stage: fixed places, sources that move on by a block.
template <Packed kFormat>
class PrefillCopies {
 public:
  __device__ __forceinline__ PrefillCopies(const MatmulArgs& args, int first_panel, int first_row)
      : args_(args), first_row_(first_row) {
    const int64_t pitch = panel_bytes(kFormat, args.cols);
#pragma unroll
    for (int i = 0; i < kWeightCopies; ++i) {
      const int at = threadIdx.x + i * kPrefillThreads;
      const int panel = first_panel + at / kBlockVectors;
      // Panels behind the last one are read as the last one, and never written.
      const int64_t last = args.panel_count - 1;
      weights_[i] = static_cast<const unsigned char*>(args.panels) +
                    (panel < last ? panel : last) * pitch + at % kBlockVectors * 16;
    }
    // Thread t copies column t % 8 of rows t / 8, t / 8 + 16, …
    inputs_ = static_cast<const uint16_t*>(args.x) +
              (first_row + static_cast<int64_t>(threadIdx.x) / kRowVectors) * args.cols +
              threadIdx.x % kRowVectors * 8;
  }

  __device__ __forceinline__ void copy(unsigned char* stage, int block) const {
#pragma unroll
    for (int i = 0; i < kWeightCopies; ++i) {
      const int at = threadIdx.x + i * kPrefillThreads;
      if (kWeightVectors % kPrefillThreads == 0 || at < kWeightVectors) {
        copy_async16(stage + at * 16, weights_[i] + static_cast<int64_t>(block) * kBlockBytes);
      }
    }
    unsigned char* to = stage + kWeightVectors * 16;
    const int row = threadIdx.x / kRowVectors, chunk = threadIdx.x % kRowVectors;
    const int64_t col = static_cast<int64_t>(block) * kBlockInputs + chunk * 8;
#pragma unroll
    for (int i = 0; i < kPrefillRows / kRowStep; ++i) {
      const int r = row + i * kRowStep;
      const bool real = first_row_ + r < args_.rows && col < args_.cols;
      unsigned char* place = to + input_offset(r, chunk);
      if (!has_vector_inputs(args_)) {
        *reinterpret_cast<uint4*>(place) =
            to_operand<kFormat>(load_any_inputs(args_, first_row_ + r, col));
        continue;
      }
      const uint16_t* from = inputs_ + i * kRowStep * args_.cols + block * kBlockInputs;
      if constexpr (kDirect) {
        copy_async16(place, real ? from : args_.x, real);
      } else {
        *reinterpret_cast<uint4*>(place) =
            to_operand<kFormat>(real ? *reinterpret_cast<const uint4*>(from) : uint4{0, 0, 0, 0});
      }
    }
  }

 private:
  static constexpr int kBlockBytes = block_bytes(kFormat);
  static constexpr int kBlockVectors = kBlockBytes / 16;
  static constexpr int kWeightVectors = kPrefillPanels * kBlockVectors;
  static constexpr int kWeightCopies = (kWeightVectors + kPrefillThreads - 1) / kPrefillThreads;
  static constexpr int kRowVectors = kBlockInputs / 8;
  static constexpr int kRowStep = kPrefillThreads / kRowVectors;
  /// Whether inputs pass into the products as they are.
  static constexpr bool kDirect = kFormat == Packed::kBF16 || kFormat == Packed::kInt4;

  const MatmulArgs& args_;
  int first_row_;
  const unsigned char* weights_[kWeightCopies];
  const uint16_t* inputs_;
};

template <Packed kFormat>
__global__ __launch_bounds__(kPrefillThreads, 2) void matmul_prefill_kernel(
    const __grid_constant__ MatmulArgs args) {
  constexpr int kBlockBytes = block_bytes(kFormat);
  constexpr int kStageBytes = prefill_stage_bytes(kFormat);
  extern __shared__ __align__(128) unsigned char shared[];
  let_next_kernel_start();
  wait_for_earlier_work();
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int g = lane / 4, t = lane % 4;
  const int first_row = blockIdx.x * kPrefillRows, first_panel = blockIdx.y * kPrefillPanels;
  const int warp_panel = warp / 2 * kWarpPanels, warp_row = warp % 2 * kWarpRowTiles * 8;
  const int blocks = static_cast<int>(blocks_of(args.cols));

  const PrefillCopies<kFormat> copies(args, first_panel, first_row);
#pragma unroll
  for (int s = 0; s < kPrefillStages - 1; ++s) {
    if (s < blocks) copies.copy(shared + s * kStageBytes, s);
    copy_async_commit();
  }
  float sums[kWarpPanels][kWarpRowTiles][4] = {};
  for (int block = 0; block < blocks; ++block) {
    copy_async_wait<kPrefillStages - 2>();
    __syncthreads();
    const int ahead = block + kPrefillStages - 1;
    if (ahead < blocks) copies.copy(shared + ahead % kPrefillStages * kStageBytes, ahead);
    copy_async_commit();
    const unsigned char* stage = shared + block % kPrefillStages * kStageBytes;
    const unsigned char* inputs = stage + kPrefillPanels * kBlockBytes;
    uint32_t a[kWarpPanels][4][4];
#pragma unroll
    for (int p = 0; p < kWarpPanels; ++p) {
      const WeightBlock<kFormat> weights(stage + (warp_panel + p) * kBlockBytes, lane);
#pragma unroll
      for (int j = 0; j < 4; ++j) weights.tile(j, a[p][j]);
    }
#pragma unroll
    for (int n = 0; n < kWarpRowTiles; ++n) {
      uint4 b[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        b[h] =
            *reinterpret_cast<const uint4*>(inputs + input_offset(warp_row + n * 8 + g, h * 4 + t));
      }
      const float2 offsets = input_offsets<kFormat>(b);
#pragma unroll
      for (int p = 0; p < kWarpPanels; ++p) {
        multiply_block<kFormat>(sums[p][n], a[p], b, offsets,
                                stage + (warp_panel + p) * kBlockBytes, g);
      }
    }
  }

#pragma unroll
  for (int p = 0; p < kWarpPanels; ++p) {
    const int panel = first_panel + warp_panel + p;
    if (panel >= args.panel_count) break;
    float scale[2] = {1, 1};
    if constexpr (kFormat == Packed::kFp8) {
      scale[0] = args.scales[static_cast<int64_t>(panel) * kPanelOutputs + g] * kTwoTo60;
      scale[1] = args.scales[static_cast<int64_t>(panel) * kPanelOutputs + g + 8] * kTwoTo60;
    }
#pragma unroll
    for (int n = 0; n < kWarpRowTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int64_t row = first_row + warp_row + n * 8 + 2 * t + e;
        if (row >= args.rows) continue;
        const float low = sums[p][n][e] * scale[0], high = sums[p][n][2 + e] * scale[1];
        if (args.epilogue == MatmulEpilogue::kSiluGate) {
          const int column = output_column(args, panel, g, kPanelOutputs / 2);
          if (column >= 0) write_output(args, row, column, low, high);
        } else {
          const int column = output_column(args, panel, g, kPanelOutputs);
          if (column >= 0) write_output(args, row, column, low, 0);
          const int next = output_column(args, panel, g + 8, kPanelOutputs);
          if (next >= 0) write_output(args, row, next, high, 0);
        }
      }
    }
  }
}

template <Packed kFormat>
cudaError_t launch_matmul_prefill(const MatmulArgs& args, Launch launch) {
  constexpr int kBytes = kPrefillStages * prefill_stage_bytes(kFormat);
  const cudaError_t error = cudaFuncSetAttribute(
      matmul_prefill_kernel<kFormat>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>((args.rows + kPrefillRows - 1) / kPrefillRows),
                  static_cast<unsigned>((args.panel_count + kPrefillPanels - 1) / kPrefillPanels));
  return launch_kernel(matmul_prefill_kernel<kFormat>, grid, dim3(kPrefillThreads), kBytes, launch,
                       args);
}

}  // namespace tandem::kernels
