#pragma once

#include <memory>
#include <vector>

#include "comm/communicator.h"

namespace tandem {

/// Joins simulated devices of one process: every rank is a thread and all memory is the host's, so
/// that placement and multi-device code runs without a GPU. Operations are done when they return;
/// the stream is not looked at. A rank that waits spins first, since its peers are usually
/// nanoseconds away, and then sleeps.
/// @return one communicator per rank; they share a group that lives as long as the last of them
std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int size);

}  // namespace tandem
