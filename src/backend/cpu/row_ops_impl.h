#pragma once

// Ops on one row of floats in terms of the including file's vec_*.h. Internal linkage (see there).
// All are bound by the bytes they touch, which lie in the caches; a last incomplete vector is
// loaded with zeros behind it.

#include "backend/cpu/exp_impl.h"
#include "backend/cpu/kernels.h"

namespace tandem {
namespace {

/// Calls step(i, count) for every vector of n elements, count being kLanes but for the last.
template <typename Step>
inline void for_each_vector(int64_t n, Step step) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) step(i, int64_t{kLanes});
  if (i < n) step(i, n - i);
}

inline Vec load_some(const float* p, int64_t count) {
  return count == kLanes ? load(p) : load_first(p, count);
}
inline void store_some(float* p, Vec a, int64_t count) {
  if (count == kLanes) {
    store(p, a);
  } else {
    store_first(p, a, count);
  }
}

inline void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  // Four sums at a time hide the latency of the additions.
  Vec sums[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int s = 0; s < 4; ++s) {
      const Vec value = load(x + i + s * kLanes);
      sums[s] = fma(value, value, sums[s]);
    }
  }
  for_each_vector(n - i, [&](int64_t j, int64_t count) {
    const Vec value = load_some(x + i + j, count);
    sums[0] = fma(value, value, sums[0]);
  });
  const float squares = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  const Vec factor = splat(1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps));
  for_each_vector(n, [&](int64_t j, int64_t count) {
    store_some(out + j, load_some(x + j, count) * factor * load_some(weight + j, count), count);
  });
}

inline void rotate(float* x, const float* angles, int64_t half) {
  for_each_vector(half, [&](int64_t i, int64_t count) {
    const Vec a = load_some(x + i, count), b = load_some(x + half + i, count);
    const Vec cosine = load_some(angles + i, count), sine = load_some(angles + half + i, count);
    store_some(x + i, a * cosine - b * sine, count);
    store_some(x + half + i, b * cosine + a * sine, count);
  });
}

inline void add_row(const float* x, int64_t n, float* out) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    store_some(out + i, load_some(out + i, count) + load_some(x + i, count), count);
  });
}

/// NaNs are passed over; of nothing else the largest is -infinity.
inline float max_row(const float* x, int64_t n) {
  float largest = -__builtin_inff();
  Vec most = splat(largest);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) most = max(load(x + i), most);
  largest = max_lane(most);
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

inline float exp_sum(const float* x, float shift, float scale, int64_t n, float* out) {
  Vec sums = splat(0.0f);
  for_each_vector(n, [&](int64_t i, int64_t count) {
    const Vec value = exp((load_some(x + i, count) - splat(shift)) * splat(scale));
    store_some(out + i, value, count);
    sums = sums + (count == kLanes ? value : load_first(out + i, count));
  });
  return sum(sums);
}

inline void scale_row(const float* x, float factor, int64_t n, float* out) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    store_some(out + i, load_some(x + i, count) * splat(factor), count);
  });
}

}  // namespace
}  // namespace tandem
