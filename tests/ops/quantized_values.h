#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "backend/weight_view.h"

namespace tandem::ops {

// What a quantised weight stands for, written down a second time, by arithmetic instead of bits.

/// The nearest E4M3 number, ties to even; too large becomes 448.
inline float to_e4m3(float value) {
  const float magnitude = std::fabs(value);
  if (magnitude >= 448.0f) return std::copysign(448.0f, value);
  const int exponent = std::max(magnitude > 0 ? std::ilogb(magnitude) : -6, -6);
  const float step = std::ldexp(1.0f, exponent - 3);
  return std::copysign(std::nearbyint(magnitude / step) * step, value);
}

/// The numbers that a backend multiplies with instead of these weights (rows, cols).
inline std::vector<float> quantized(const std::vector<float>& w, int64_t rows, int64_t cols,
                                    WeightFormat format) {
  std::vector<float> out = w;
  const bool fp8 = format == WeightFormat::kFp8E4M3, int4 = format == WeightFormat::kInt4Group128;
  if (!fp8 && !int4) return out;
  constexpr int64_t kGroup = 128;
  const int64_t group = int4 ? kGroup : cols;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t first = 0; first < cols; first += group) {
      const int64_t last = std::min(first + group, cols);
      float extreme = 0;  // of two opposite ones the negative
      for (int64_t c = first; c < last; ++c) {
        const float value = w[static_cast<size_t>(r * cols + c)];
        const bool larger = std::fabs(value) > std::fabs(extreme);
        if (larger || (value < 0 && value == -extreme)) extreme = value;
      }
      const float scale =
          fp8 ? std::fabs(extreme) / 448.0f : bf16_to_float(float_to_bf16(extreme / -8.0f));
      const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
      for (int64_t c = first; c < last; ++c) {
        float& value = out[static_cast<size_t>(r * cols + c)];
        value = fp8 ? to_e4m3(value * inverse) * scale
                    : std::min(std::max(std::nearbyint(value * inverse), -8.0f), 7.0f) * scale;
      }
    }
  }
  return out;
}

}  // namespace tandem::ops
