#pragma once

// Philox4x32-10 (core/philox.h) for sixteen counters side by side in terms of the including file's
// words_*.h. Internal linkage (see there). Bound by the multiplications: 20 wide ones a counter.

#include "backend/cpu/kernels.h"

namespace tandem {
namespace {

inline void philox_blocks(const uint32_t* counter, uint64_t key, uint32_t first_block,
                          uint32_t* words) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  constexpr int kRounds = 10;
  Words c0 = splat_words(counter[0]), c1 = splat_words(counter[1]);
  Words c2 = count_from(first_block), c3 = splat_words(counter[3]);
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kRounds; ++round) {
    Words high0, low0, high1, low1;
    wide_multiply(c0, kMultiplier0, high0, low0);
    wide_multiply(c2, kMultiplier1, high1, low1);
    c0 = high1 ^ c1 ^ splat_words(k0);
    c2 = high0 ^ c3 ^ splat_words(k1);
    c1 = low1;
    c3 = low0;
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  store_words(words, c0);
  store_words(words + kLanes, c1);
  store_words(words + 2 * kLanes, c2);
  store_words(words + 3 * kLanes, c3);
}

}  // namespace
}  // namespace tandem
