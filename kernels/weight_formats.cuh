#pragma once

#include "common.cuh"

namespace tandem::kernels {

// What a lane reads of a block of packed weights: the tensor cores' 16x16 operands of its four
// runs of 16 inputs, in the element type of the products.

/// Weights as stored: bfloat16 or float16.
template <Packed kFormat>
struct WeightBlock {
  static_assert(kFormat == Packed::kBF16 || kFormat == Packed::kF16);
  uint4 tiles[4];
  WeightBlock() = default;
  __device__ __forceinline__ WeightBlock(const unsigned char* block, int lane) {
    load(block, lane);
  }
  __device__ __forceinline__ void load(const unsigned char* block, int lane) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      tiles[j] = *reinterpret_cast<const uint4*>(block + j * 512 + lane * 16);
    }
  }
  __device__ __forceinline__ void tile(int j, uint32_t (&a)[4]) const {
    a[0] = tiles[j].x, a[1] = tiles[j].y, a[2] = tiles[j].z, a[3] = tiles[j].w;
  }
};

/// Four E4M3 numbers of a word as two bfloat16 pairs (bytes 0 and 2, bytes 1 and 3), 2^-120 times
/// too small and otherwise exact: the seven low bits become a bfloat16's exponent and fraction.
__device__ __forceinline__ void unpack_fp8(uint32_t word, uint32_t& even, uint32_t& odd) {
  constexpr uint32_t kSigns = 0x80008000u, kMagnitudes = 0x07f007f0u;
  even = ((word << 4) & kMagnitudes) | ((word << 8) & kSigns);
  odd = ((word >> 4) & kMagnitudes) | (word & kSigns);
}
/// Half of what is missing goes to the other operand before the product, which so stays far from
/// both ends of float32's range, and half to the sum.
constexpr uint32_t kTwoTo60Pair = 0x5d805d80u;
constexpr float kTwoTo60 = 0x1p60f;

template <>
struct WeightBlock<Packed::kFp8> {
  uint4 halves[2];
  WeightBlock() = default;
  __device__ __forceinline__ WeightBlock(const unsigned char* block, int lane) {
    load(block, lane);
  }
  __device__ __forceinline__ void load(const unsigned char* block, int lane) {
    halves[0] = *reinterpret_cast<const uint4*>(block + lane * 16);
    halves[1] = *reinterpret_cast<const uint4*>(block + 512 + lane * 16);
  }
  __device__ __forceinline__ void tile(int j, uint32_t (&a)[4]) const {
    const uint4& half = halves[j / 2];
    unpack_fp8(j % 2 == 0 ? half.x : half.z, a[0], a[1]);
    unpack_fp8(j % 2 == 0 ? half.y : half.w, a[2], a[3]);
  }
};

constexpr float kInt4Bias = 136.0f;

/// The scale of one of a 4-bit block's 16 outputs.
__device__ __forceinline__ float int4_scale(const unsigned char* block, int output) {
  const auto* scales = reinterpret_cast<const uint16_t*>(block + kPanelOutputs * kBlockInputs / 2);
  return __uint_as_float(static_cast<uint32_t>(scales[output]) << 16);
}

template <>
struct WeightBlock<Packed::kInt4> {
  uint4 words;
  uint16_t scales[2];  ///< bfloat16, of this lane's outputs g and g + 8
  WeightBlock() = default;
  __device__ __forceinline__ WeightBlock(const unsigned char* block, int lane) {
    load(block, lane);
  }
  __device__ __forceinline__ void load(const unsigned char* block, int lane) {
    words = *reinterpret_cast<const uint4*>(block + lane * 16);
    const auto* all = reinterpret_cast<const uint16_t*>(block + kPanelOutputs * kBlockInputs / 2);
    scales[0] = all[lane / 4], scales[1] = all[lane / 4 + 8];
  }
  __device__ __forceinline__ float low() const {
    return __uint_as_float(static_cast<uint32_t>(scales[0]) << 16);
  }
  __device__ __forceinline__ float high() const {
    return __uint_as_float(static_cast<uint32_t>(scales[1]) << 16);
  }
  /// Codes 0 … 15 stand for -8 … 7; a code in the fraction of 128 makes 128 + code, so that every
  /// weight is kInt4Bias too large.
  __device__ __forceinline__ void tile(int j, uint32_t (&a)[4]) const {
    constexpr uint32_t kNibbles = 0x000f000fu;
    // Held in a register: two constants would take two instructions.
    uint32_t k128;
    asm("mov.b32 %0, 0x43004300;" : "=r"(k128));
    const uint32_t word = j == 0 ? words.x : j == 1 ? words.y : j == 2 ? words.z : words.w;
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = and_or(word >> (4 * i), kNibbles, k128);
  }
};
/// One weight of a panel, for lookups. The scale of fp8 is the caller's.
template <Packed kFormat>
__device__ __forceinline__ float weight_at(const unsigned char* panel, int output, int64_t input) {
  const unsigned char* block = panel + input / kBlockInputs * block_bytes(kFormat);
  const int k = static_cast<int>(input % kBlockInputs);
  const int lane = output % 8 * 4 + k % 32 / 8;
  const int tile = k / 32 * 2 + k % 8 / 4;
  const int word = k % 4 / 2 * 2 + output / 8;
  const int odd = k % 2;
  if constexpr (kFormat == Packed::kBF16 || kFormat == Packed::kF16) {
    const auto bits =
        *reinterpret_cast<const uint16_t*>(block + tile * 512 + lane * 16 + word * 4 + odd * 2);
    if constexpr (kFormat == Packed::kF16) return __half2float(__ushort_as_half(bits));
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
  } else if constexpr (kFormat == Packed::kFp8) {
    const uint32_t byte =
        block[tile / 2 * 512 + lane * 16 + tile % 2 * 8 + word / 2 * 4 + word % 2 + odd * 2];
    uint32_t even_pair, odd_pair;
    unpack_fp8(byte, even_pair, odd_pair);
    return unpack_bf16(even_pair).x * kTwoTo60 * kTwoTo60;
  } else {
    const uint32_t bits = *reinterpret_cast<const uint32_t*>(block + lane * 16 + tile * 4);
    const int code = static_cast<int>((bits >> (4 * (word + 4 * odd))) & 15u) - 8;
    return static_cast<float>(code) * int4_scale(block, output);
  }
}

}  // namespace tandem::kernels
