#pragma once

// Sixteen float lanes in two registers for the kernels compiled with AVX2, FMA and F16C. Include in
// kernels_avx2.cpp alone: everything here has internal linkage, so that no other file can end up
// with code that its machine may not run.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace tandem {
namespace {

struct Vec {
  __m256 a, b;
};

alignas(64) constexpr int32_t kFirstLanes[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                                 -1, -1, -1, -1, -1, 0,  0,  0,  0,  0,  0,
                                                 0,  0,  0,  0,  0,  0,  0,  0,  0,  0};
inline __m256i first_lanes(int64_t n, int half) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirstLanes + 16 - n + 8 * half));
}

inline Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
/// The first n < 16 lanes; the others are 0.
inline Vec load_first(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, first_lanes(n, 0)), _mm256_maskload_ps(p + 8, first_lanes(n, 1))};
}
inline void store(float* p, Vec x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void store_first(float* p, Vec x, int64_t n) {
  _mm256_maskstore_ps(p, first_lanes(n, 0), x.a);
  _mm256_maskstore_ps(p + 8, first_lanes(n, 1), x.b);
}
inline Vec splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Vec operator+(Vec x, Vec y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Vec operator-(Vec x, Vec y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Vec operator*(Vec x, Vec y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Vec operator/(Vec x, Vec y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
/// x * y + z
inline Vec fma(Vec x, Vec y, Vec z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
/// Lane-wise; where one is NaN, y.
inline Vec max(Vec x, Vec y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Vec min(Vec x, Vec y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline Vec round(Vec x) {
  return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline __m256 power_of_two(__m256 n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
/// x * 2^n for integral n in [-126, 127]
inline Vec times_power_of_two(Vec x, Vec n) {
  return {_mm256_mul_ps(x.a, power_of_two(n.a)), _mm256_mul_ps(x.b, power_of_two(n.b))};
}
/// y, but 0 in lanes where x < bound
inline Vec zero_where_less(Vec y, Vec x, Vec bound) {
  return {_mm256_and_ps(_mm256_cmp_ps(x.a, bound.a, _CMP_NLT_UQ), y.a),
          _mm256_and_ps(_mm256_cmp_ps(x.b, bound.b, _CMP_NLT_UQ), y.b)};
}

inline float sum(Vec x) {
  const __m256 s8 = _mm256_add_ps(x.a, x.b);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
inline float max_lane(Vec x) {
  const __m256 m8 = _mm256_max_ps(x.a, x.b);
  const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
  const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

/// Float weights of one line: an even and an odd input of 16 outputs each.
struct BFloat16Line {
  static constexpr int64_t kBytes = 64;
  static __m256i half(const std::byte* p, int index) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p) + index);
  }
  static Vec even(const std::byte* p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(half(p, 0), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(half(p, 1), 16))};
  }
  static Vec odd(const std::byte* p) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm256_castsi256_ps(_mm256_and_si256(half(p, 0), high)),
            _mm256_castsi256_ps(_mm256_and_si256(half(p, 1), high))};
  }
};
struct Float16Line {
  static constexpr int64_t kBytes = 64;
  static __m256 eighth(const std::byte* p, int index) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + index));
  }
  static Vec even(const std::byte* p) { return {eighth(p, 0), eighth(p, 1)}; }
  static Vec odd(const std::byte* p) { return {eighth(p, 2), eighth(p, 3)}; }
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
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
  }
  static Vec odd(const std::byte* p) { return even(p + 16); }
};
/// Codes 0 … 15 for -8 … 7.
struct Int4Line {
  static constexpr int64_t kBytes = 16;
  static __m256i codes(const std::byte* p, int half) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * half)));
  }
  static __m256 values(__m256i codes) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, _mm256_set1_epi32(8)));
  }
  static Vec even(const std::byte* p) {
    const __m256i low = _mm256_set1_epi32(15);
    return {values(_mm256_and_si256(codes(p, 0), low)), values(_mm256_and_si256(codes(p, 1), low))};
  }
  static Vec odd(const std::byte* p) {
    return {values(_mm256_srli_epi32(codes(p, 0), 4)), values(_mm256_srli_epi32(codes(p, 1), 4))};
  }
};

// Rows and panels whose sums (two registers each) fit the 16 registers beside the weights.
constexpr int kTileRows = 6;
constexpr int kTilePanels[kTileRows] = {4, 3, 2, 1, 1, 1};
// Likewise for attention: queries, blocks of 16 keys they meet at once, vectors of their values.
constexpr int kAttentionQueries = 2;
constexpr int kScoreBlocks = 2;
constexpr int kMixVectors = 2;

}  // namespace
}  // namespace tandem
