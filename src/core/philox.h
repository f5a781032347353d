#pragma once

#include <array>
#include <cstdint>

namespace tandem {

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a
/// counter-based generator, so a number depends on its key and counter alone, not on who asked
/// before.
using PhiloxCounter = std::array<uint32_t, 4>;

constexpr PhiloxCounter philox4x32(PhiloxCounter counter, uint64_t key) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  constexpr int kRounds = 10;
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kMultiplier0) * counter[0];
    const uint64_t p1 = static_cast<uint64_t>(kMultiplier1) * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return counter;
}

/// What a random number is for. Different purposes at the same position never share numbers.
enum class RandomPurpose : uint32_t { kDraft = 0, kAccept = 1, kResidual = 2, kGumbel = 3 };

/// The counter of DESIGN 4: (position, round base, token block, purpose and sequence). Each block
/// holds four numbers.
constexpr PhiloxCounter random_counter(int position, int round_base, uint32_t token_block,
                                       RandomPurpose purpose, int sequence) {
  return {static_cast<uint32_t>(position), static_cast<uint32_t>(round_base), token_block,
          (static_cast<uint32_t>(purpose) << 24) | static_cast<uint32_t>(sequence)};
}

/// Maps the first 52 of 64 random bits to the open interval (0, 1): 2^-53 … 1 - 2^-53 in steps of
/// 2^-52, each exact in double precision. Fewer bits would leave rare tokens of a large vocabulary
/// between two steps, where no draw finds them.
constexpr double uniform_open(uint32_t high, uint32_t low) {
  constexpr int kLowBits = 20;
  const uint64_t bits = (static_cast<uint64_t>(high) << kLowBits) | (low >> (32 - kLowBits));
  return (static_cast<double>(bits) + 0.5) * 0x1p-52;
}

/// Standard Gumbel noise g = -log(E), E exponential, from 32 random bits. E is made as -log1p(-u)
/// so that small E, the large g that win an argmax, keep their full precision. Always finite.
float gumbel_noise(uint32_t bits);

}  // namespace tandem
