#include "matmul_epilogue.cuh"
#include "unpack.h"

namespace tandem::kernels {
namespace {

constexpr int kUnpackWarps = 8;
constexpr int kFinishThreads = 256;
constexpr int kFinishOutputs = 4;  // of a thread
constexpr int kConvertPairs = 4;   // of a thread

/// A pair of weights as the products want it.
template <Packed kFormat>
__device__ __forceinline__ uint32_t plain_pair(uint32_t pair) {
  if constexpr (kFormat != Packed::kFp8) return pair;
  const float2 v = unpack_bf16(pair);
  return pack_bf16(v.x * kTwoTo60 * kTwoTo60, v.y * kTwoTo60 * kTwoTo60);
}

// Panels as a row-major matrix.
// Bound: bytes of the panels and of the matrix. A warp takes one block: lane (g, t) holds eight
// consecutive inputs of outputs g and g + 8 in each half of it.
template <Packed kFormat>
__global__ __launch_bounds__(kUnpackWarps* kWarpLanes) void unpack_kernel(
    const unsigned char* panels, int64_t cols, uint16_t* matrix) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int g = lane / 4, t = lane % 4;
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kUnpackWarps + warp;
  if (block >= blocks_of(cols)) return;
  const int64_t panel = blockIdx.y;
  const WeightBlock<kFormat> weights(
      panels + panel * panel_bytes(kFormat, cols) + block * block_bytes(kFormat), lane);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t first[4], second[4];
    weights.tile(2 * half, first);
    weights.tile(2 * half + 1, second);
    const int64_t col = block * kBlockInputs + half * (kBlockInputs / 2) + 8 * t;
    if (col >= cols) continue;
#pragma unroll
    for (int high = 0; high < 2; ++high) {
      const int64_t row = panel * kPanelOutputs + g + 8 * high;
      *reinterpret_cast<uint4*>(matrix + row * cols + col) = {
          plain_pair<kFormat>(first[high]), plain_pair<kFormat>(first[2 + high]),
          plain_pair<kFormat>(second[high]), plain_pair<kFormat>(second[2 + high])};
    }
  }
}

/// Four sums of a row to their places, at once where these follow each other.
__device__ __forceinline__ void write_four(const MatmulArgs& args, int64_t row,
                                           const int (&columns)[kFinishOutputs],
                                           const float (&values)[kFinishOutputs],
                                           const float (&ups)[kFinishOutputs]) {
  const int64_t index = row * args.out_stride + columns[0];
  const bool together = columns[0] >= 0 && columns[3] == columns[0] + 3 && index % 4 == 0 &&
                        args.bias == nullptr && args.out_type == Element::kBF16;
  if (!together) {
#pragma unroll
    for (int i = 0; i < kFinishOutputs; ++i) {
      if (columns[i] >= 0) write_output(args, row, columns[i], values[i], ups[i]);
    }
    return;
  }
  float results[kFinishOutputs];
#pragma unroll
  for (int i = 0; i < kFinishOutputs; ++i) {
    results[i] = args.epilogue == MatmulEpilogue::kSiluGate
                     ? values[i] / (1.0f + expf(-values[i])) * ups[i]
                     : values[i];
  }
  *reinterpret_cast<uint2*>(static_cast<uint16_t*>(args.out) + index) = {
      pack_bf16(results[0], results[1]), pack_bf16(results[2], results[3])};
}

// Scale, bias, gate or residual of finished sums. Bound: bytes of the sums and of the results.
// A thread takes four outputs of a row (of a paired panel: four columns' gates and ups).
__global__ __launch_bounds__(kFinishThreads) void finish_kernel(
    const __grid_constant__ MatmulArgs args, const float* sums, int first_panel, int panels) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const bool gate = args.epilogue == MatmulEpilogue::kSiluGate;
  const int fours = (gate ? kPanelOutputs / 2 : kPanelOutputs) / kFinishOutputs;
  const int at = static_cast<int>(blockIdx.x) * kFinishThreads + static_cast<int>(threadIdx.x);
  if (at >= panels * fours) return;
  const int panel = at / fours, output = at % fours * kFinishOutputs;
  const int64_t row = blockIdx.y;
  const float* from = sums + (row * panels + panel) * kPanelOutputs + output;
  const auto load = [&](int offset, float(&values)[kFinishOutputs]) {
    const float4 v = *reinterpret_cast<const float4*>(from + offset);
    values[0] = v.x, values[1] = v.y, values[2] = v.z, values[3] = v.w;
    if (args.format != Packed::kFp8) return;
    const float4 s = *reinterpret_cast<const float4*>(
        args.scales + static_cast<int64_t>(first_panel + panel) * kPanelOutputs + output + offset);
    values[0] *= s.x, values[1] *= s.y, values[2] *= s.z, values[3] *= s.w;
  };
  float values[kFinishOutputs], ups[kFinishOutputs] = {};
  load(0, values);
  if (gate) load(kPanelOutputs / 2, ups);
  int columns[kFinishOutputs];
#pragma unroll
  for (int i = 0; i < kFinishOutputs; ++i) {
    columns[i] = output_column(args, first_panel + panel, output + i,
                               gate ? kPanelOutputs / 2 : kPanelOutputs);
  }
  write_four(args, row, columns, values, ups);
}

__global__ void to_f16_kernel(const uint4* from, uint4* to, int64_t count) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) to[i] = to_operand<Packed::kF16>(from[i]);
}

template <Packed kFormat>
cudaError_t launch_unpack(const void* panels, int64_t count, int64_t cols, void* matrix,
                          Launch launch) {
  const dim3 grid(static_cast<unsigned>((blocks_of(cols) + kUnpackWarps - 1) / kUnpackWarps),
                  static_cast<unsigned>(count));
  return launch_kernel(unpack_kernel<kFormat>, grid, dim3(kUnpackWarps * kWarpLanes), 0, launch,
                       static_cast<const unsigned char*>(panels), cols,
                       static_cast<uint16_t*>(matrix));
}

}  // namespace

cudaError_t unpack(const void* panels, int64_t count, int64_t cols, Packed format, void* matrix,
                   Launch launch) {
  switch (format) {
    case Packed::kBF16:
      return launch_unpack<Packed::kBF16>(panels, count, cols, matrix, launch);
    case Packed::kF16:
      return launch_unpack<Packed::kF16>(panels, count, cols, matrix, launch);
    case Packed::kFp8:
      return launch_unpack<Packed::kFp8>(panels, count, cols, matrix, launch);
    case Packed::kInt4:
      break;
  }
  return cudaErrorInvalidValue;
}

cudaError_t finish_products(const MatmulArgs& args, const float* sums, int64_t first_panel,
                            int64_t panels, Launch launch) {
  const int64_t outputs =
      args.epilogue == MatmulEpilogue::kSiluGate ? kPanelOutputs / 2 : kPanelOutputs;
  const int64_t threads = panels * outputs / kFinishOutputs;
  const dim3 grid(static_cast<unsigned>((threads + kFinishThreads - 1) / kFinishThreads),
                  static_cast<unsigned>(args.rows));
  return launch_kernel(finish_kernel, grid, dim3(kFinishThreads), 0, launch, args, sums,
                       static_cast<int>(first_panel), static_cast<int>(panels));
}

cudaError_t bf16_to_f16(const void* from, void* to, int64_t count, Launch launch) {
  const int64_t vectors = count / (2 * kConvertPairs);
  return launch_kernel(to_f16_kernel,
                       dim3(static_cast<unsigned>((vectors + kFinishThreads - 1) / kFinishThreads)),
                       dim3(kFinishThreads), 0, launch, static_cast<const uint4*>(from),
                       static_cast<uint4*>(to), vectors);
}

}  // namespace tandem::kernels
