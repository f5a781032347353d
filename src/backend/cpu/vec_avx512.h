#pragma once

// Sixteen float lanes for the kernels compiled with AVX-512. Include in kernels_avx512.cpp alone:
// everything here has internal linkage, so that no other file can end up with code that its machine
// may not run.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace tandem {
namespace {

struct Vec {
  __m512 v;
};

inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>((1u << static_cast<unsigned>(n)) - 1u);
}
/// The first n < 16 lanes; the others are 0.
inline Vec load_first(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline void store_first(float* p, Vec a, int64_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), a.v);
}
inline Vec splat(float x) { return {_mm512_set1_ps(x)}; }
inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
/// a * b + c
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
/// Lane-wise; where one is NaN, b.
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec round(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// a * 2^n for integral n in [-126, 127]
inline Vec times_power_of_two(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
/// a, but 0 in lanes where x < bound
inline Vec zero_where_less(Vec a, Vec x, Vec bound) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, bound.v, _CMP_NLT_UQ), a.v)};
}

inline float sum(Vec a) {
  const __m256 low = _mm512_castps512_ps256(a.v);
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1));
  const __m256 s8 = _mm256_add_ps(low, high);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
inline float max_lane(Vec a) { return _mm512_reduce_max_ps(a.v); }

/// Float weights of one line: an even and an odd input of 16 outputs each.
struct BFloat16Line {
  static constexpr int64_t kBytes = 64;
  static Vec even(const std::byte* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))};
  }
  static Vec odd(const std::byte* p) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), high))};
  }
};
struct Float16Line {
  static constexpr int64_t kBytes = 64;
  static Vec even(const std::byte* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Vec odd(const std::byte* p) { return even(p + 32); }
};
/// E4M3 codes as halves, 2^-8 times too small: eight bits of sign, exponent and fraction in the
/// place of a half's.
struct Fp8Line {
  static constexpr int64_t kBytes = 32;
  static Vec even(const std::byte* p) {
    const __m256i codes =
        _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(codes, 7),
                                            _mm256_set1_epi16(static_cast<short>(0xbf80)));
    return {_mm512_cvtph_ps(halves)};
  }
  static Vec odd(const std::byte* p) { return even(p + 16); }
};
/// Codes 0 … 15 for -8 … 7.
struct Int4Line {
  static constexpr int64_t kBytes = 16;
  static __m512i codes(const std::byte* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  /// The permutation reads the low four bits of each index.
  static Vec values(__m512i codes) {
    const __m512 numbers = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    return {_mm512_permutexvar_ps(codes, numbers)};
  }
  static Vec even(const std::byte* p) { return values(codes(p)); }
  static Vec odd(const std::byte* p) { return values(_mm512_srli_epi32(codes(p), 4)); }
};

// Rows and panels whose sums fit the 32 registers beside the weights; several panels keep both
// multiply-add units busy in spite of their latency.
constexpr int kTileRows = 5;
constexpr int kTilePanels[kTileRows] = {5, 5, 5, 5, 5};
// Likewise for attention: queries, blocks of 16 keys they meet at once, vectors of their values.
constexpr int kAttentionQueries = 4;
constexpr int kScoreBlocks = 4;
constexpr int kMixVectors = 4;

}  // namespace
}  // namespace tandem
