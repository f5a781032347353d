#pragma once

#include "weight_formats.cuh"

namespace tandem::kernels {

// What the matmuls for few and for many rows share: rows in, products, results out.

__device__ __forceinline__ uint32_t bf16_pair_to_f16(uint32_t pair) {
  constexpr float kLargest = 65504.0f;
  const float2 v = unpack_bf16(pair);
  const __half2 h = __floats2half2_rn(fminf(fmaxf(v.x, -kLargest), kLargest),
                                      fminf(fmaxf(v.y, -kLargest), kLargest));
  return *reinterpret_cast<const uint32_t*>(&h);
}

/// A bfloat16 pair times 2^60.
__device__ __forceinline__ uint32_t scale_pair(uint32_t pair) {
  constexpr uint32_t kFactor = kTwoTo60Pair;
  const __nv_bfloat162 scaled = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&pair),
                                        *reinterpret_cast<const __nv_bfloat162*>(&kFactor));
  return *reinterpret_cast<const uint32_t*>(&scaled);
}

/// Eight inputs as the products want them.
template <Packed kFormat>
__device__ __forceinline__ uint4 to_operand(uint4 pairs) {
  if constexpr (kFormat == Packed::kF16) {
    return {bf16_pair_to_f16(pairs.x), bf16_pair_to_f16(pairs.y), bf16_pair_to_f16(pairs.z),
            bf16_pair_to_f16(pairs.w)};
  } else if constexpr (kFormat == Packed::kFp8) {
    return {scale_pair(pairs.x), scale_pair(pairs.y), scale_pair(pairs.z), scale_pair(pairs.w)};
  } else {
    return pairs;
  }
}

/// Whether a row's inputs can be read 16 bytes at a time.
inline __host__ __device__ bool has_vector_inputs(const MatmulArgs& args) {
  return args.x_type == Element::kBF16 && args.cols % 8 == 0;
}

/// Eight consecutive inputs of a row as bfloat16 pairs, zeros outside the matrix; any input type.
__device__ __forceinline__ uint4 load_any_inputs(const MatmulArgs& args, int row, int64_t input) {
  uint32_t pairs[4] = {0, 0, 0, 0};
  const int64_t index = row * args.cols + input;
  for (int i = 0; i < 8; ++i) {
    if (row >= args.rows || input + i >= args.cols) break;
    uint32_t bits;
    if (args.x_type == Element::kBF16) {
      bits = __ldcg(static_cast<const uint16_t*>(args.x) + index + i);
    } else {
      bits = pack_bf16(__ldcg(static_cast<const float*>(args.x) + index + i), 0.0f);
    }
    pairs[i / 2] |= bits << (i % 2 * 16);
  }
  return {pairs[0], pairs[1], pairs[2], pairs[3]};
}

template <Packed kFormat>
__device__ __forceinline__ void multiply(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  if constexpr (kFormat == Packed::kF16) {
    mma_f16(sums, a, b0, b1);
  } else {
    mma_bf16(sums, a, b0, b1);
  }
}

/// Column of `out` for one output of a panel, or -1 for padding.
__device__ __forceinline__ int output_column(const MatmulArgs& args, int panel, int output,
                                             int outputs_per_panel) {
  int segment = 0;
  while (segment + 1 < args.segment_count && panel >= args.segment_panel[segment + 1]) ++segment;
  const int row =
      (panel - static_cast<int>(args.segment_panel[segment])) * outputs_per_panel + output;
  return row < args.segment_rows[segment] ? static_cast<int>(args.segment_column[segment]) + row
                                          : -1;
}

/// One finished sum to its place, `index`. `up` is the paired output's sum, for the gate epilogue;
/// `before` what stands in `out`, for the adding ones.
__device__ __forceinline__ void write_output(const MatmulArgs& args, int64_t index, int column,
                                             float value, float up, float before) {
  if (args.bias != nullptr) {
    value += args.bias[column];
    if (args.epilogue == MatmulEpilogue::kSiluGate) up += args.bias[args.bias_up + column];
  }
  if (args.epilogue == MatmulEpilogue::kSiluGate) value = value / (1.0f + expf(-value)) * up;
  if (args.out_type == Element::kF32) {
    static_cast<float*>(args.out)[index] =
        args.epilogue == MatmulEpilogue::kAdd ? before + value : value;
  } else {
    static_cast<__nv_bfloat16*>(args.out)[index] = __float2bfloat16_rn(value);
  }
}
/// The same for many rows.
__device__ __forceinline__ void write_output(const MatmulArgs& args, int64_t row, int column,
                                             float value, float up) {
  const bool adds = args.epilogue == MatmulEpilogue::kAdd;
  const int64_t index = row * args.out_stride + column;
  const float before = adds ? static_cast<const float*>(args.out)[index] : 0.0f;
  write_output(args, index, column, value, up, before);
}

/// Sums of eight rows' 64 inputs times minus kInt4Bias, in the places of a 16x8 result; 4-bit
/// weights need them.
template <Packed kFormat>
__device__ __forceinline__ float2 input_offsets(const uint4 (&b)[2]) {
  if constexpr (kFormat != Packed::kInt4) return {0, 0};
  constexpr uint32_t kOnes = 0x3f803f80u;
  const uint32_t ones[4] = {kOnes, kOnes, kOnes, kOnes};
  float sums[4] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    mma_bf16(sums, ones, b[h].x, b[h].y);
    mma_bf16(sums, ones, b[h].z, b[h].w);
  }
  return {-kInt4Bias * sums[0], -kInt4Bias * sums[1]};
}

/// sums += one block's products: 16 outputs, 8 rows, 64 inputs.
template <Packed kFormat>
__device__ __forceinline__ void multiply_block(float (&sums)[4], const uint32_t (&a)[4][4],
                                               const uint4 (&b)[2], float2 offsets,
                                               const unsigned char* block, int g) {
  if constexpr (kFormat == Packed::kInt4) {
    const float start[4] = {offsets.x, offsets.y, offsets.x, offsets.y};
    float part[4];
    mma_bf16(part, start, a[0], b[0].x, b[0].y);
    mma_bf16(part, a[1], b[0].z, b[0].w);
    mma_bf16(part, a[2], b[1].x, b[1].y);
    mma_bf16(part, a[3], b[1].z, b[1].w);
    const float low = int4_scale(block, g), high = int4_scale(block, g + 8);
    sums[0] = fmaf(part[0], low, sums[0]);
    sums[1] = fmaf(part[1], low, sums[1]);
    sums[2] = fmaf(part[2], high, sums[2]);
    sums[3] = fmaf(part[3], high, sums[3]);
  } else {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      multiply<kFormat>(sums, a[2 * h], b[h].x, b[h].y);
      multiply<kFormat>(sums, a[2 * h + 1], b[h].z, b[h].w);
    }
  }
}

}  // namespace tandem::kernels
