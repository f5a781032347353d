#pragma once

// Sixteen 32-bit words in two registers. Include in kernels_avx2.cpp alone (see vec_avx2.h).

#include <immintrin.h>

#include <cstdint>

namespace tandem {
namespace {

struct Words {
  __m256i a, b;
};

inline Words splat_words(uint32_t x) {
  const __m256i v = _mm256_set1_epi32(static_cast<int>(x));
  return {v, v};
}
/// x, x + 1, …, x + 15
inline Words count_from(uint32_t x) {
  const __m256i first = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(x)),
                                         _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return {first, _mm256_add_epi32(first, _mm256_set1_epi32(8))};
}
inline Words operator^(const Words& x, const Words& y) {
  return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)};
}
inline void wide_multiply(__m256i x, __m256i factor, __m256i& high, __m256i& low) {
  constexpr int kOddWords = 0xAA;
  const __m256i even = _mm256_mul_epu32(x, factor);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), factor);
  high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, kOddWords);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), kOddWords);
}
/// Both halves of the 64-bit products x * factor.
inline void wide_multiply(const Words& x, uint32_t factor, Words& high, Words& low) {
  const __m256i f = _mm256_set1_epi32(static_cast<int>(factor));
  wide_multiply(x.a, f, high.a, low.a);
  wide_multiply(x.b, f, high.b, low.b);
}
inline void store_words(uint32_t* p, const Words& x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.b);
}

}  // namespace
}  // namespace tandem
