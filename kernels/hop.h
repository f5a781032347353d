#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels.h"
#include "peer_layout.h"

/// Kernels that hand words from one GPU to others over peer memory.
namespace tandem::kernels {

constexpr int kMaxHopParts = 4;

/// One hand-over. Sender and receivers launch the same ones, of the same sizes, in the same order;
/// the sender not before every receiver is through with the one before.
struct HopArgs {
  /// Words of 32 bits: what is sent, or where it goes. Behind each other they make the message.
  uint32_t* parts[kMaxHopParts] = {};
  int64_t words[kMaxHopParts] = {};
  int num_parts = 0;
  /// Landing zones of hop_zone_bytes(all words): the receivers', for a sender; its own, for a
  /// receiver.
  void* zones[kMaxPeers] = {};
  int num_zones = 0;
  uint32_t* copy = nullptr;  ///< where a sender keeps the message besides; null: nowhere
  uint32_t* epochs =
      nullptr;  ///< this end's counters, hop_blocks(all words) of them, cleared before
  /// Mapped host memory: not 0 makes blocks that wait give up.
  const volatile uint32_t* abort = nullptr;
};

cudaError_t hop_send(const HopArgs& args, Launch launch);
cudaError_t hop_receive(const HopArgs& args, Launch launch);

}  // namespace tandem::kernels
