#pragma once

#include <array>
#include <cstddef>
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

/// Whether this build can join GPUs.
bool has_nccl();

/// @throws UsageError in a build without NCCL; DeviceError
NcclId draw_nccl_id();

/// Joins GPUs through NCCL, of this process or of several: ranks first_rank, first_rank + 1, … are
/// this process's `devices` (CUDA indices). Returns when every rank of the group is there; every
/// rank has talked to every other one by then, so that nothing is set up while a pass is captured.
///
/// Operations may be captured. A graph that holds some must be destroyed before its communicator.
/// `abort` returns at once: kernels that wait are told to end, and the group is taken down on
/// helper threads, for which the last destructor waits a limited time.
/// @param process what messages call this process's ranks; empty: "rank 1 (cuda:1)", and so on
/// @throws UsageError in a build without NCCL; DeviceError
std::vector<std::unique_ptr<Communicator>> make_nccl_communicators(const NcclId& id, int world_size,
                                                                   int first_rank,
                                                                   std::span<const int> devices,
                                                                   const std::string& process = {});

/// The same for devices of several processes, which all call it; rank 0's process draws the id.
/// @throws also when the group fails meanwhile
std::vector<std::unique_ptr<Communicator>> make_nccl_communicators(ProcessGroup& group,
                                                                   int world_size, int first_rank,
                                                                   std::span<const int> devices);

}  // namespace tandem
