#include "core/philox.h"

#include <algorithm>
#include <cmath>

namespace tandem {

float gumbel_noise(uint32_t bits) {
  constexpr float kLargestBelowOne = 1.0f - 0x1p-24f;
  const float u = std::min((static_cast<float>(bits) + 0.5f) * 0x1p-32f, kLargestBelowOne);
  return -std::log(-std::log1p(-u));
}

}  // namespace tandem
