#pragma once

// What the kernels lay out by the compute capability (10 * major + minor) that they were compiled
// for. Device code asks for its own, the host for Launch::capability: both have to hear the same.
// Pure arithmetic, no CUDA types.
namespace tandem::kernels {

constexpr int kFirstClusterCapability = 90;
/// Programmatic dependent launch: before, a kernel cannot wait for the one in front of it.
constexpr bool can_overlap(int capability) { return capability >= 90; }

/// Blocks that share a row of a vocabulary.
constexpr int row_cluster_blocks(int capability) {
  return capability >= kFirstClusterCapability ? 8 : 1;
}
/// Blocks that share a part of the decode attention.
constexpr int blocks_of_part(int capability) {
  return capability >= kFirstClusterCapability ? 2 : 1;
}

/// Stages of the ring that the weights of few rows' matmuls pass through. Many fit into shared
/// memory twice from 9.0 on, but not on 12.x; few fit twice on 8.0, and once anywhere.
constexpr int kManyStages = 4, kFewStages = 2;
constexpr int stages_of(int capability) {
  return capability >= 90 && capability < 120 ? kManyStages : kFewStages;
}

}  // namespace tandem::kernels
