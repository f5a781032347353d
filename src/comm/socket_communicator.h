#pragma once

#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "comm/process_group.h"

namespace tandem {

/// Joins simulated devices of several processes over TCP, so that what runs on GPUs of several
/// processes runs without a GPU. Sums add in rank order. Operations are done when they return; the
/// stream is not looked at. All processes call it at the same time.
/// @param first_rank, count the ranks of this process; those of all processes make up the world
/// @throws DeviceError when the group failed
std::vector<std::unique_ptr<Communicator>> make_socket_communicators(
    std::shared_ptr<ProcessGroup> group, int world_size, int first_rank, int count);

}  // namespace tandem
