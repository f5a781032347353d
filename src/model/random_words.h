#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"

namespace tandem {

/// Random elements of a weight matrix: magnitudes from 2^-7 to 2^-6, either sign. An element
/// depends on seed, row and column alone.
class RandomElements {
 public:
  /// @param dtype f32, f16 or bf16
  RandomElements(DType dtype, uint64_t seed) : seed_(mix(seed)), per_word_(8 / size_of(dtype)) {
    // The random bits are sign and fraction; the exponent is fixed.
    switch (dtype) {
      case DType::kF32:
        keep_ = 0x807fffff807fffffu, exponent_ = 0x3c0000003c000000u;
        break;
      case DType::kF16:
        keep_ = 0x83ff83ff83ff83ffu, exponent_ = 0x2000200020002000u;
        break;
      default:
        keep_ = 0x807f807f807f807fu, exponent_ = 0x3c003c003c003c00u;
    }
  }

  /// Columns [first, first + count) of a row.
  void fill(int64_t row, int64_t first, int64_t count, std::byte* out) const {
    const uint64_t row_seed = seed_ + kRowStep * static_cast<uint64_t>(row);
    const auto per_word = static_cast<int64_t>(per_word_);
    const auto element = static_cast<int64_t>(sizeof(uint64_t)) / per_word;
    int64_t column = first;
    const int64_t end = first + count;
    const auto copy_part = [&] {
      const uint64_t word = word_at(row_seed, column / per_word);
      const int64_t skip = column % per_word;
      const int64_t taken = std::min(per_word - skip, end - column);
      std::memcpy(out, reinterpret_cast<const std::byte*>(&word) + skip * element,
                  static_cast<size_t>(taken * element));
      out += taken * element;
      column += taken;
    };
    if (column % per_word != 0) copy_part();
    for (; column + per_word <= end; column += per_word, out += sizeof(uint64_t)) {
      const uint64_t word = word_at(row_seed, column / per_word);
      std::memcpy(out, &word, sizeof(word));
    }
    if (column < end) copy_part();
  }

 private:
  static constexpr uint64_t kRowStep = 0xd1342543de82ef95u;
  static constexpr uint64_t kWordStep = 0x9e3779b97f4a7c15u;

  /// The finaliser of SplitMix64 (Steele et al. 2014).
  static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  uint64_t word_at(uint64_t row_seed, int64_t index) const {
    return (mix(row_seed + kWordStep * static_cast<uint64_t>(index + 1)) & keep_) | exponent_;
  }

  uint64_t seed_;
  size_t per_word_;
  uint64_t keep_ = 0, exponent_ = 0;
};

}  // namespace tandem
