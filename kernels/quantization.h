#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define TANDEM_HOST_DEVICE __host__ __device__
#else
#include <cmath>
#define TANDEM_HOST_DEVICE
#endif

namespace tandem::kernels {

// What a quantised weight is: scales and codes, for the GPU and the CPU alike, so that both hold
// the same numbers. Every operation below is rounded once, to nearest, on either. No CUDA types.
//
//   fp8   E4M3 codes (Micikevicius et al. 2022); one float32 scale for each output
//   int4  codes 0 ... 15 for -8 ... 7; one bfloat16 scale for each output and 128 inputs
//
// A weight is code * scale. A scale maps the largest magnitude it serves to the format's largest:
// to 448, or to -8, for which a scale of 4-bit codes may be negative. Where all are zero, or so
// small that the scale would be subnormal, the codes are zero.

constexpr float kLargestFp8 = 448.0f;
constexpr float kSmallestInt4 = -8.0f, kLargestInt4 = 7.0f;
constexpr int kInt4Group = 128;
constexpr int kInt4Zero = 8;  ///< the code of 0
constexpr float kSmallestScale = 0x1p-126f;

TANDEM_HOST_DEVICE inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}
TANDEM_HOST_DEVICE inline float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

/// @param largest magnitude of an output's weights
TANDEM_HOST_DEVICE inline float fp8_scale(float largest) {
  const float scale = largest / kLargestFp8;
  return scale >= kSmallestScale ? scale : 1.0f;
}

/// Rounded to bfloat16.
/// @param low  smallest of an output's group of weights, at most 0
/// @param high largest of them, at least 0
TANDEM_HOST_DEVICE inline float int4_scale(float low, float high) {
  const uint32_t bits = bits_of((-low >= high ? low : high) / kSmallestInt4);
  const float scale = from_bits((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
  return scale >= kSmallestScale || scale <= -kSmallestScale ? scale : 0.0f;
}

/// What weights are multiplied with before they become codes.
TANDEM_HOST_DEVICE inline float inverse_scale(float scale) {
  return scale != 0.0f ? 1.0f / scale : 0.0f;
}

/// The nearest E4M3 number, ties to even; too large becomes the largest, NaN stays NaN.
TANDEM_HOST_DEVICE inline uint8_t fp8_code(float scaled) {
  constexpr uint32_t kInfinity = 0x7f800000u, kLargest = 0x43e00000u;
  constexpr uint32_t kSmallestNormal = 0x3c800000u;  // 2^-6
  constexpr uint32_t kRebias = (127u - 7u) << 23;
  const uint32_t bits = bits_of(scaled);
  const uint32_t sign = (bits >> 24) & 0x80u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > kInfinity) return static_cast<uint8_t>(sign | 0x7fu);
  if (magnitude >= kLargest) return static_cast<uint8_t>(sign | 0x7eu);
  if (magnitude < kSmallestNormal) {
    // The sum's last place is 2^-9, the format's smallest number.
    constexpr float kShift = 0x1p14f;
    const float sum = from_bits(magnitude) + kShift;
    return static_cast<uint8_t>(sign | (bits_of(sum) - bits_of(kShift)));
  }
  const uint32_t rounded = magnitude - kRebias + 0x7ffffu + ((magnitude >> 20) & 1u);
  return static_cast<uint8_t>(sign | (rounded >> 20));
}

/// The number that an E4M3 code stands for.
TANDEM_HOST_DEVICE inline float fp8_value(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  // Read as a float32 it lacks 120 in its exponent.
  return from_bits(sign | (static_cast<uint32_t>(code & 0x7fu) << 20)) * 0x1p120f;
}

TANDEM_HOST_DEVICE inline uint8_t int4_code(float scaled) {
  const float rounded = rintf(scaled);
  const float above = rounded > kSmallestInt4 ? rounded : kSmallestInt4;
  return static_cast<uint8_t>((above < kLargestInt4 ? above : kLargestInt4) - kSmallestInt4);
}
TANDEM_HOST_DEVICE inline float int4_value(uint8_t code) {
  return static_cast<float>(static_cast<int>(code) - kInt4Zero);
}

}  // namespace tandem::kernels
