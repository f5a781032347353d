#pragma once

// Sixteen 32-bit words for every machine. Include in kernels_portable.cpp alone (see
// vec_portable.h).

#include <cstdint>

namespace tandem {
namespace {

struct Words {
  uint32_t v[16];
};

inline Words splat_words(uint32_t x) {
  Words a;
  for (uint32_t& word : a.v) word = x;
  return a;
}
/// x, x + 1, …, x + 15
inline Words count_from(uint32_t x) {
  Words a;
  for (uint32_t i = 0; i < 16; ++i) a.v[i] = x + i;
  return a;
}
inline Words operator^(const Words& a, const Words& b) {
  Words c;
  for (int i = 0; i < 16; ++i) c.v[i] = a.v[i] ^ b.v[i];
  return c;
}
/// Both halves of the 64-bit products a * factor.
inline void wide_multiply(const Words& a, uint32_t factor, Words& high, Words& low) {
  for (int i = 0; i < 16; ++i) {
    const uint64_t product = static_cast<uint64_t>(a.v[i]) * factor;
    high.v[i] = static_cast<uint32_t>(product >> 32);
    low.v[i] = static_cast<uint32_t>(product);
  }
}
inline void store_words(uint32_t* p, const Words& a) {
  for (int i = 0; i < 16; ++i) p[i] = a.v[i];
}

}  // namespace
}  // namespace tandem
