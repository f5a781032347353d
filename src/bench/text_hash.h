#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace tandem::bench {

inline constexpr uint64_t kEmptyHash = 0xcbf29ce484222325;

/// FNV-1a over bytes, 64 bits: tells texts apart, promises nothing against malice.
/// @param before the hash of what stands before `text`
inline uint64_t text_hash(std::string_view text, uint64_t before = kEmptyHash) {
  constexpr uint64_t kPrime = 0x100000001b3;
  for (const char c : text) before = (before ^ static_cast<unsigned char>(c)) * kPrime;
  return before;
}

/// The same over token ids, and their number.
inline uint64_t token_hash(std::span<const int32_t> tokens, uint64_t before = kEmptyHash) {
  const uint64_t count = tokens.size();
  const uint64_t head = text_hash({reinterpret_cast<const char*>(&count), sizeof(count)}, before);
  return text_hash({reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()}, head);
}

}  // namespace tandem::bench
