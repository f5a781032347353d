#pragma once

#include <array>
#include <cstdint>

#include "packed_layout.h"

// How the decode attention divides its work, and what it leaves in memory; plain C++, so that plans
// can ask.
namespace tandem::kernels {

/// Head sizes that the attention kernels are built for.
inline constexpr std::array kAttentionHeadDims = {32, 64, 96, 128, 256};

constexpr int kMaxDecodeRows = 16;         ///< of the kernels for few rows
constexpr int kMostAttentionHeads = 1024;  ///< of the decode attention

/// Warps of a block: as many as leave each the registers for its keys.
constexpr int block_warps(int head_dim) { return head_dim > 128 ? 4 : 8; }
/// Slots of a block: one for each lane.
constexpr int block_slots(int head_dim) { return block_warps(head_dim) * kWarpLanes; }
constexpr int parts_of(int slots, int part_slots) { return (slots + part_slots - 1) / part_slots; }

/// Floats of the sums that kMaxDecodeRows rows leave of parts of so many blocks, where a sequence
/// has at most so many slots.
constexpr int64_t attention_partial_floats(int heads, int head_dim, int slots, int blocks) {
  constexpr int kScale = 2;  // beside each sum its weights' maximum and total
  const int parts = parts_of(slots, block_slots(head_dim) * blocks);
  return int64_t{kMaxDecodeRows} * heads * parts * (head_dim + kScale);
}

}  // namespace tandem::kernels
