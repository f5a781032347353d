#include "quantization.h"
#include "weight_formats.cuh"

namespace tandem::kernels {
namespace {

// Row-major weights into panels (packed_layout.h), rounding or quantising on the way.
// Bound: bytes of the matrix, read once (fp8: twice) and written once.
// Work: a warp takes 128 inputs of one panel; lane (g, t) reads 8 consecutive inputs of row g at a
// time.

constexpr int kPackWarps = 8;
constexpr int kPairInputs = 2 * kBlockInputs;
static_assert(kPairInputs == kInt4Group);

__device__ float load_element(const PackArgs& args, int64_t row, int64_t col) {
  if (row >= args.rows || col >= args.cols) return 0.0f;
  const int64_t index = row * args.cols + col;
  switch (args.source_type) {
    case Source::kF32:
      return static_cast<const float*>(args.source)[index];
    case Source::kF16:
      return __half2float(static_cast<const __half*>(args.source)[index]);
    default:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(args.source)[index]);
  }
}

/// Where output `row` of the slab lies: its panel and its place in it.
struct Place {
  int64_t panel;
  int output;
};
__device__ Place place_of(const PackArgs& args, int64_t row) {
  constexpr int kHalf = kPanelOutputs / 2;
  const int64_t global = args.first_row + row;
  if (args.paired_half < 0) {
    return {global / kPanelOutputs, static_cast<int>(global % kPanelOutputs)};
  }
  return {global / kHalf, static_cast<int>(global % kHalf) + args.paired_half * kHalf};
}

/// The scale of every output (quantization.h).
__global__ void fp8_scales_kernel(const PackArgs args) {
  const int64_t row = blockIdx.x;
  float largest = 0;
  for (int64_t col = threadIdx.x; col < args.cols; col += kWarpLanes) {
    largest = fmaxf(largest, fabsf(load_element(args, row, col)));
  }
  largest = warp_max(largest);
  if (threadIdx.x == 0) {
    const Place place = place_of(args, row);
    args.scales[place.panel * kPanelOutputs + place.output] = fp8_scale(largest);
  }
}

/// Rows come in eights, because a half of a panel is what a segment of a paired weight owns.
template <Packed kFormat>
__device__ void pack_eight(const PackArgs& args, int64_t first, int64_t pair, int lane) {
  const int g = lane / 4, t = lane % 4;
  const Place place = place_of(args, first);
  const int high = place.output / 8;
  const int64_t blocks = blocks_of(args.cols);
  unsigned char* panel =
      static_cast<unsigned char*>(args.panels) + place.panel * blocks * block_bytes(kFormat);
  float values[4][8];
  float smallest = 0, largest = 0;
#pragma unroll
  for (int part = 0; part < 4; ++part) {
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      values[part][e] = load_element(args, first + g, pair * kPairInputs + part * 32 + t * 8 + e);
      smallest = fminf(smallest, values[part][e]);
      largest = fmaxf(largest, values[part][e]);
    }
  }
  float inverse = 1;
  uint16_t int4_scale_bits = 0;
  if constexpr (kFormat == Packed::kInt4) {
#pragma unroll
    for (int lanes = 1; lanes <= 2; lanes *= 2) {
      smallest = fminf(smallest, __shfl_xor_sync(0xffffffffu, smallest, lanes));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, lanes));
    }
    const float scale = int4_scale(smallest, largest);
    int4_scale_bits = static_cast<uint16_t>(bits_of(scale) >> 16);
    inverse = inverse_scale(scale);
  } else if constexpr (kFormat == Packed::kFp8) {
    if (first + g < args.rows) {
      inverse = inverse_scale(args.scales[place.panel * kPanelOutputs + place.output + g]);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t index = pair * 2 + half;
    if (index >= blocks) break;
    unsigned char* block = panel + index * block_bytes(kFormat);
    if constexpr (kFormat == Packed::kInt4) {
      if (t == 0) {
        auto* scales = reinterpret_cast<uint16_t*>(block + kPanelOutputs * kBlockInputs / 2);
        scales[g + 8 * high] = int4_scale_bits;
      }
    }
#pragma unroll
    for (int tile = 0; tile < 4; ++tile) {
      const float* v = &values[half * 2 + tile / 2][tile % 2 * 4];
      if constexpr (kFormat == Packed::kBF16) {
        auto* words = reinterpret_cast<uint32_t*>(block + tile * 512 + lane * 16);
        words[high] = pack_bf16(v[0], v[1]);
        words[2 + high] = pack_bf16(v[2], v[3]);
      } else if constexpr (kFormat == Packed::kF16) {
        auto* words = reinterpret_cast<__half2*>(block + tile * 512 + lane * 16);
        words[high] = __floats2half2_rn(v[0], v[1]);
        words[2 + high] = __floats2half2_rn(v[2], v[3]);
      } else if constexpr (kFormat == Packed::kFp8) {
        unsigned char* bytes = block + tile / 2 * 512 + lane * 16 + tile % 2 * 8 + high;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          bytes[i / 2 * 4 + i % 2 * 2] = fp8_code(v[i] * inverse);
        }
      } else {
        auto* word = reinterpret_cast<uint32_t*>(block + lane * 16 + tile * 4);
        uint32_t bits = *word;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int shift = 4 * (i / 2 * 2 + high + 4 * (i % 2));
          const uint32_t code = int4_code(v[i] * inverse);
          bits = (bits & ~(15u << shift)) | (code << shift);
        }
        *word = bits;
      }
    }
  }
}

template <Packed kFormat>
__global__ void pack_kernel(const PackArgs args) {
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kPackWarps + warp;
  if (pair * 2 >= blocks_of(args.cols)) return;
  // Both halves of an unpaired panel are one warp's: they share bytes.
  const int eights = args.paired_half < 0 ? 2 : 1;
  for (int i = 0; i < eights; ++i) {
    const int64_t first = (static_cast<int64_t>(blockIdx.y) * eights + i) * 8;
    if (first < args.rows) pack_eight<kFormat>(args, first, pair, lane);
    __syncwarp();
  }
}

}  // namespace

cudaError_t pack(const PackArgs& args, Launch launch) {
  launch.overlap = false;  // these kernels do not wait for earlier work by themselves
  if (args.format == Packed::kFp8) {
    const cudaError_t error =
        launch_kernel(fp8_scales_kernel, dim3(static_cast<unsigned>(args.rows)), dim3(kWarpLanes),
                      0, launch, args);
    if (error != cudaSuccess) return error;
  }
  const int64_t pairs = (args.cols + kPairInputs - 1) / kPairInputs;
  const int64_t rows_of_block = args.paired_half < 0 ? kPanelOutputs : kPanelOutputs / 2;
  const dim3 grid(static_cast<unsigned>((pairs + kPackWarps - 1) / kPackWarps),
                  static_cast<unsigned>((args.rows + rows_of_block - 1) / rows_of_block));
  constexpr int kThreads = kPackWarps * kWarpLanes;
  switch (args.format) {
    case Packed::kBF16:
      return launch_kernel(pack_kernel<Packed::kBF16>, grid, dim3(kThreads), 0, launch, args);
    case Packed::kF16:
      return launch_kernel(pack_kernel<Packed::kF16>, grid, dim3(kThreads), 0, launch, args);
    case Packed::kFp8:
      return launch_kernel(pack_kernel<Packed::kFp8>, grid, dim3(kThreads), 0, launch, args);
    case Packed::kInt4:
      return launch_kernel(pack_kernel<Packed::kInt4>, grid, dim3(kThreads), 0, launch, args);
  }
  return cudaErrorInvalidValue;
}

}  // namespace tandem::kernels
