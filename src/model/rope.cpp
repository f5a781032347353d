#include "model/rope.h"

#include <cmath>
#include <numbers>

namespace tandem {

std::vector<float> rope_frequencies(const RopeConfig& rope, int head_dim) {
  constexpr float kFullTurn = 2.0f * std::numbers::pi_v<float>;
  const auto theta = static_cast<float>(rope.theta);
  const auto factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor),
             high = static_cast<float>(rope.high_freq_factor);
  const auto original = static_cast<float>(rope.original_max_position_embeddings);
  std::vector<float> frequencies;
  for (int i = 0; i < head_dim; i += 2) {
    const float frequency =
        1.0f / std::pow(theta, static_cast<float>(i) / static_cast<float>(head_dim));
    const float wavelength = kFullTurn / frequency;
    if (rope.kind == RopeConfig::Kind::kDefault) {
      frequencies.push_back(frequency);
    } else if (rope.kind == RopeConfig::Kind::kLinear || wavelength > original / low) {
      frequencies.push_back(frequency / factor);
    } else if (wavelength < original / high) {
      frequencies.push_back(frequency);
    } else {
      const float smooth = (original / wavelength - low) / (high - low);
      frequencies.push_back((1.0f - smooth) * frequency / factor + smooth * frequency);
    }
  }
  return frequencies;
}

}  // namespace tandem
