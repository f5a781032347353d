#pragma once

// The exponential function in terms of the including file's vec_*.h. Internal linkage (see there).

namespace tandem {
namespace {

/// exp(x) within 2 ulp; 0 where x < -87.33 (results below the smallest normal number), NaN where x
/// is NaN. Beyond 88.37 the result stays at exp(88.37).
inline Vec exp(Vec x) {
  constexpr float kLowest = -87.33654f;  // just above log(2^-126)
  constexpr float kHighest = 88.37626f;  // log(2^127.5): the power of two below stays finite
  constexpr float kLog2E = 1.44269504f;
  // log(2) in two parts: the first has few enough bits for n * kLn2High to be exact.
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  // Minimax polynomial for (exp(r) - 1 - r) / r^2 on |r| <= log(2) / 2 (Cephes, expf).
  constexpr float kPolynomial[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                   4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  // This order of arguments lets NaN through.
  const Vec clamped = min(splat(kHighest), max(splat(kLowest), x));
  const Vec n = round(clamped * splat(kLog2E));
  const Vec r = fma(n, splat(-kLn2Low), fma(n, splat(-kLn2High), clamped));
  Vec p = splat(kPolynomial[0]);
  for (int i = 1; i < 6; ++i) p = fma(p, r, splat(kPolynomial[i]));
  const Vec e = fma(p, r * r, r) + splat(1.0f);
  return zero_where_less(times_power_of_two(e, n), x, splat(kLowest));
}

}  // namespace
}  // namespace tandem
