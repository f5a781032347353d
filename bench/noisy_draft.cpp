#include "noisy_draft.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numbers>
#include <span>
#include <vector>

#include "core/mapped_file.h"
#include "core/philox.h"
#include "model/safetensors.h"
#include "tandem/error.h"

namespace tandem::bench {
namespace {

namespace fs = std::filesystem;
constexpr const char* kWeights = "model.safetensors";
constexpr int kBf16Shift = 16;

float from_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << kBf16Shift);
}

/// Rounds to nearest, ties to even.
uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t odd = (bits >> kBf16Shift) & 1u;
  return static_cast<uint16_t>((bits + 0x7fffu + odd) >> kBf16Shift);
}

/// Box-Muller on two uniforms of the counter (element, tensor).
double normal(uint32_t element, uint32_t tensor, uint64_t seed) {
  const PhiloxCounter words = philox4x32({element, tensor, 0, 0}, seed);
  const double radius = std::sqrt(-2 * std::log(uniform_open(words[0], words[1])));
  return radius * std::cos(2 * std::numbers::pi * uniform_open(words[2], words[3]));
}

void spoil(std::span<uint16_t> weights, double noise, uint32_t tensor, uint64_t seed) {
  double squares = 0;
  for (const uint16_t bits : weights) {
    const auto weight = static_cast<double>(from_bf16(bits));
    squares += weight * weight;
  }
  const double scale = std::sqrt(squares / static_cast<double>(weights.size()));
  for (size_t i = 0; i < weights.size(); ++i) {
    const double kept = (1 - noise) * static_cast<double>(from_bf16(weights[i]));
    const double added = noise * scale * normal(static_cast<uint32_t>(i), tensor, seed);
    weights[i] = to_bf16(static_cast<float>(kept + added));
  }
}

}  // namespace

void write_noisy_model(const fs::path& model, const fs::path& to, double noise, uint64_t seed) {
  fs::create_directories(to);
  for (const auto& item : fs::directory_iterator(model)) {
    if (!item.is_regular_file() || item.path().filename() == kWeights) continue;
    fs::copy_file(item.path(), to / item.path().filename(), fs::copy_options::overwrite_existing);
  }
  const fs::path source = model / kWeights;
  std::string bytes = read_text_file(source);
  const SafetensorsHeader header =
      parse_safetensors(std::as_bytes(std::span(bytes.data(), bytes.size())), source.string());
  uint32_t tensor = 0;
  for (const auto& [name, entry] : header) {
    ++tensor;
    if (entry.shape.size() < 2) continue;
    if (entry.dtype != DType::kBF16) {
      throw ModelError(source.string() + ": tensor '" + name + "' is " + entry.dtype_name +
                       "; noise is added to bfloat16 weights alone");
    }
    std::vector<uint16_t> weights((entry.end - entry.begin) / sizeof(uint16_t));
    std::memcpy(weights.data(), bytes.data() + entry.begin, entry.end - entry.begin);
    spoil(weights, noise, tensor, seed);
    std::memcpy(bytes.data() + entry.begin, weights.data(), entry.end - entry.begin);
  }
  std::ofstream file(to / kWeights, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw ModelError((to / kWeights).string() + ": cannot be written");
}

}  // namespace tandem::bench
