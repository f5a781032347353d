#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/process_group.h"

namespace tandem {

/// Names a group of ranks that is about to form. Rank 0's process draws it and hands it to the
/// others.
using NcclId = std::array<std::byte, 128>;

/// What a group's ranks do together, besides `broadcast` from any of them. NCCL takes memory of
/// each GPU for every pair of ranks that it connects, so that no more are connected than do it.
enum class Traffic : uint8_t {
  kSums,   ///< all_reduce_sum and all_gather: a tensor split
  kChain,  ///< each rank sends to the next one: a layer split
  kAll,    ///< everything, between any two
};

/// Whether this build can join GPUs.
bool has_nccl();

/// @throws UsageError in a build without NCCL; DeviceError
NcclId draw_nccl_id();

/// Joins GPUs through NCCL, of this process or of several: ranks first_rank, first_rank + 1, … are
/// this process's `devices` (CUDA indices). Returns when every rank of the group is there; all that
/// `traffic` names has been done once by then, so that nothing is set up while a pass is captured.
/// Other operations work too, but their first use takes time and memory.
///
/// Operations may be captured. A graph that holds some must be destroyed before its communicator.
/// `abort` returns at once: kernels that wait are told to end, and the group is taken down on
/// helper threads, for which the last destructor waits a limited time.
/// @param process what messages call this process's ranks; empty: "rank 1 (cuda:1)", and so on
/// @throws UsageError in a build without NCCL; DeviceError
std::vector<std::unique_ptr<Communicator>> make_nccl_communicators(const NcclId& id, int world_size,
                                                                   int first_rank,
                                                                   std::span<const int> devices,
                                                                   Traffic traffic,
                                                                   const std::string& process = {});

/// The same for devices of several processes, which all call it; rank 0's process draws the id.
/// @throws also when the group fails meanwhile
std::vector<std::unique_ptr<Communicator>> make_nccl_communicators(ProcessGroup& group,
                                                                   int world_size, int first_rank,
                                                                   std::span<const int> devices,
                                                                   Traffic traffic);

}  // namespace tandem
