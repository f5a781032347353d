#pragma once

// Sixteen 32-bit words in one register. Include in kernels_avx512.cpp alone (see vec_avx512.h).

#include <immintrin.h>

#include <cstdint>

namespace tandem {
namespace {

struct Words {
  __m512i v;
};

inline Words splat_words(uint32_t x) { return {_mm512_set1_epi32(static_cast<int>(x))}; }
/// x, x + 1, …, x + 15
inline Words count_from(uint32_t x) {
  return {
      _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(x)),
                       _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))};
}
inline Words operator^(Words a, Words b) { return {_mm512_xor_si512(a.v, b.v)}; }
/// Both halves of the 64-bit products a * factor.
inline void wide_multiply(Words a, uint32_t factor, Words& high, Words& low) {
  constexpr __mmask16 kOddWords = 0xAAAA;
  const __m512i f = _mm512_set1_epi32(static_cast<int>(factor));
  const __m512i even = _mm512_mul_epu32(a.v, f);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), f);
  high = {_mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), kOddWords, odd)};
  low = {_mm512_mask_mov_epi32(even, kOddWords, _mm512_slli_epi64(odd, 32))};
}
inline void store_words(uint32_t* p, Words a) { _mm512_storeu_si512(p, a.v); }

}  // namespace
}  // namespace tandem
