#pragma once

#include <cstdint>

// How the memory of exchanges between GPUs is laid out; plain C++, so that plans can ask.
namespace tandem::kernels {

constexpr int kMaxPeers = 8;
/// 32-bit words that one block of an exchange carries.
constexpr int kPeerBlockWords = 1024;
/// Rows whose choices an exchange carries.
constexpr int kPeerChoices = 256;
/// Two exchanges of a block may be under way: a rank that is ahead writes the next one while
/// another still reads.
constexpr int kPeerStages = 2;

constexpr int64_t peer_blocks(int64_t words) {
  return (words + kPeerBlockWords - 1) / kPeerBlockWords;
}

/// A rank's landing zone, (stage, from rank, block) with a flag beside each word, and behind it a
/// counter for each block.
constexpr int64_t peer_zone_bytes(int ranks, int64_t blocks) {
  return kPeerStages * ranks * blocks * kPeerBlockWords * static_cast<int64_t>(sizeof(uint64_t));
}
constexpr int64_t peer_memory_bytes(int ranks, int64_t blocks) {
  return peer_zone_bytes(ranks, blocks) + blocks * static_cast<int64_t>(sizeof(uint32_t));
}

/// 32-bit words that one block of a hand-over carries.
constexpr int kHopBlockWords = 512;

constexpr int64_t hop_blocks(int64_t words) {
  return (words + kHopBlockWords - 1) / kHopBlockWords;
}
/// A landing zone: a flag beside each word.
constexpr int64_t hop_zone_bytes(int64_t words) {
  return hop_blocks(words) * kHopBlockWords * static_cast<int64_t>(sizeof(uint64_t));
}
/// What one end counts its messages in.
constexpr int64_t hop_counter_bytes(int64_t words) {
  return hop_blocks(words) * static_cast<int64_t>(sizeof(uint32_t));
}

}  // namespace tandem::kernels
