#pragma once

// Sixteen float lanes in four short vectors for every machine; the compiler maps them to what it
// has (SSE2, NEON) or to scalars. Include in kernels_portable.cpp alone.

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tandem {
namespace {

using Float4 = float __attribute__((vector_size(16)));
using Int4 = int32_t __attribute__((vector_size(16)));

struct Vec {
  Float4 v[4];
};

template <typename Operation>
inline Vec each(Operation operation) {
  return {{operation(0), operation(1), operation(2), operation(3)}};
}

inline Vec load(const float* p) {
  Vec a;
  std::memcpy(&a, p, sizeof(a));
  return a;
}
/// The first n < 16 lanes; the others are 0.
inline Vec load_first(const float* p, int64_t n) {
  Vec a = {};
  std::memcpy(&a, p, static_cast<size_t>(n) * sizeof(float));
  return a;
}
inline void store(float* p, const Vec& a) { std::memcpy(p, &a, sizeof(a)); }
inline void store_first(float* p, const Vec& a, int64_t n) {
  std::memcpy(p, &a, static_cast<size_t>(n) * sizeof(float));
}
inline Vec splat(float x) {
  const Float4 v = {x, x, x, x};
  return {{v, v, v, v}};
}
inline Vec operator+(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline Vec operator-(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline Vec operator*(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline Vec operator/(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
/// a * b + c, rounded twice: not every machine has a fused one, and emulating it would be slow.
inline Vec fma(const Vec& a, const Vec& b, const Vec& c) {
  return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}

inline Float4 select(Int4 mask, Float4 yes, Float4 no) {
  return reinterpret_cast<Float4>((mask & reinterpret_cast<Int4>(yes)) |
                                  (~mask & reinterpret_cast<Int4>(no)));
}
/// Lane-wise; where one is NaN, b.
inline Vec max(const Vec& a, const Vec& b) {
  return each([&](int i) { return select(a.v[i] > b.v[i], a.v[i], b.v[i]); });
}
inline Vec min(const Vec& a, const Vec& b) {
  return each([&](int i) { return select(a.v[i] < b.v[i], a.v[i], b.v[i]); });
}
/// For |a| < 2^22: adding and taking away 1.5 * 2^23 leaves no room for a fraction.
inline Vec round(const Vec& a) {
  const Vec shift = splat(0x1.8p23f);
  return (a + shift) - shift;
}
/// a * 2^n for integral n in [-126, 127]
inline Vec times_power_of_two(const Vec& a, const Vec& n) {
  constexpr int32_t kBias = 127, kFractionBits = 23;
  return each([&](int i) {
    const Int4 exponent = (__builtin_convertvector(n.v[i], Int4) + kBias) << kFractionBits;
    return a.v[i] * reinterpret_cast<Float4>(exponent);
  });
}
/// a, but 0 in lanes where x < bound
inline Vec zero_where_less(const Vec& a, const Vec& x, const Vec& bound) {
  return each([&](int i) { return select(x.v[i] < bound.v[i], Float4{}, a.v[i]); });
}

inline float sum(const Vec& a) {
  const Float4 s = (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]);
  return (s[0] + s[2]) + (s[1] + s[3]);
}
inline float max_lane(const Vec& a) {
  float lanes[16];
  store(lanes, a);
  float largest = lanes[0];
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

/// Float weights of one line: an even and an odd input of 16 outputs each.
struct BFloat16Line {
  static constexpr int64_t kBytes = 64;
  static Int4 quarter(const std::byte* p, int index) {
    Int4 bits;
    std::memcpy(&bits, p + index * static_cast<int>(sizeof(bits)), sizeof(bits));
    return bits;
  }
  static Vec even(const std::byte* p) {
    return each([&](int i) { return reinterpret_cast<Float4>(quarter(p, i) << 16); });
  }
  static Vec odd(const std::byte* p) {
    constexpr auto kHigh = static_cast<int32_t>(0xffff0000u);
    return each([&](int i) { return reinterpret_cast<Float4>(quarter(p, i) & kHigh); });
  }
};
struct Float16Line {
  static constexpr int64_t kBytes = 64;
  static Vec even(const std::byte* p) {
    using Short4 = uint16_t __attribute__((vector_size(8)));
    return each([&](int i) {
      Short4 halves;
      std::memcpy(&halves, p + i * static_cast<int>(sizeof(halves)), sizeof(halves));
      const Int4 bits = __builtin_convertvector(halves, Int4);
      const Int4 magnitude = (bits & 0x7fff) << 13;
      // Read as a float this lacks 112 in its exponent; the product restores that and makes
      // subnormals normal.
      const Float4 scaled = reinterpret_cast<Float4>(magnitude) * 0x1p112f;
      const Int4 special = (bits & 0x7c00) == 0x7c00;  // infinity and NaN
      const Int4 sign = (bits & 0x8000) << 16;
      return reinterpret_cast<Float4>(sign | (special & (magnitude | 0x7f800000)) |
                                      (~special & reinterpret_cast<Int4>(scaled)));
    });
  }
  static Vec odd(const std::byte* p) { return even(p + 32); }
};
/// Sixteen bytes as integers.
struct ByteQuarters {
  using Byte4 = uint8_t __attribute__((vector_size(4)));
  static Int4 load(const std::byte* p, int index) {
    Byte4 bytes;
    std::memcpy(&bytes, p + index * static_cast<int>(sizeof(bytes)), sizeof(bytes));
    return __builtin_convertvector(bytes, Int4);
  }
};
/// E4M3 codes, 2^-8 times too small.
struct Fp8Line {
  static constexpr int64_t kBytes = 32;
  static Vec even(const std::byte* p) {
    return each([&](int i) {
      const Int4 code = ByteQuarters::load(p, i);
      // Read as a float this lacks 112 in its exponent besides; the product makes subnormals
      // normal.
      const Float4 magnitude = reinterpret_cast<Float4>((code & 0x7f) << 20) * 0x1p112f;
      return reinterpret_cast<Float4>(((code & 0x80) << 24) | reinterpret_cast<Int4>(magnitude));
    });
  }
  static Vec odd(const std::byte* p) { return even(p + 16); }
};
/// Codes 0 … 15 for -8 … 7.
struct Int4Line {
  static constexpr int64_t kBytes = 16;
  static Vec even(const std::byte* p) {
    return each([&](int i) {
      return __builtin_convertvector((ByteQuarters::load(p, i) & 15) - 8, Float4);
    });
  }
  static Vec odd(const std::byte* p) {
    return each([&](int i) {
      return __builtin_convertvector((ByteQuarters::load(p, i) >> 4) - 8, Float4);
    });
  }
};

// Rows and panels whose sums (four registers each) fit the 16 registers beside the weights.
constexpr int kTileRows = 2;
constexpr int kTilePanels[kTileRows] = {2, 1};
// Likewise for attention: queries, blocks of 16 keys they meet at once, vectors of their values.
constexpr int kAttentionQueries = 2;
constexpr int kScoreBlocks = 1;
constexpr int kMixVectors = 1;

}  // namespace
}  // namespace tandem
