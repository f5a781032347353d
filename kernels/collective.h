#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels.h"
#include "peer_layout.h"

/// Kernels for what several GPUs compute together.
namespace tandem::kernels {

/// out += parts[0] + parts[1] + …, in this order; parts (ranks, count).
cudaError_t add_parts(const float* parts, int ranks, float* out, int64_t count, Launch launch);

/// `add_parts`, and the norm of `out`; count is rows * cols.
cudaError_t add_parts_norm(const float* parts, int ranks, float* out, int64_t count,
                           const NormArgs& norm, Launch launch);

/// One rank's end of an exchange over peer memory. Every rank launches the same exchanges in the
/// same order.
struct PeerArgs {
  int rank = 0;
  int ranks = 0;
  int blocks = 0;                ///< the largest exchange has this many
  void* memory[kMaxPeers] = {};  ///< by rank: peer_memory_bytes(ranks, blocks), cleared before
  /// Mapped host memory: not 0 makes blocks that wait give up.
  const volatile uint32_t* abort = nullptr;
};

/// out += terms of rank 0 + terms of rank 1 + …, in this order, on every rank: the bits of
/// add_parts. `count` is a multiple of 4, at most blocks * kPeerBlockWords.
cudaError_t peer_add(const PeerArgs& args, const float* terms, float* out, int64_t count,
                     Launch launch);

/// `peer_add`, and the norm of `out`: the bits of add_parts_norm.
cudaError_t peer_add_norm(const PeerArgs& args, const float* terms, float* out, int64_t count,
                          const NormArgs& norm, Launch launch);

/// ids[r] = the best of all ranks' choices (rows, 2), as join_argmax chooses, r < kPeerChoices;
/// null: not wanted here.
cudaError_t peer_join_argmax(const PeerArgs& args, const int32_t* choices, int rows, int32_t* ids,
                             Launch launch);

/// words = the root's words. `count` as above.
cudaError_t peer_broadcast(const PeerArgs& args, uint32_t* words, int64_t count, int root,
                           Launch launch);

}  // namespace tandem::kernels
