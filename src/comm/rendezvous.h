#pragma once

#include <string>
#include <vector>

#include "comm/socket.h"
#include "tandem/processes.h"

namespace tandem {

/// What is known of a process when all have met.
struct ProcessInfo {
  std::string host;     ///< its name, for people
  std::string machine;  ///< equal exactly where processes run on one host
  std::string address;  ///< where others reach it
};

/// The connections of a process: rank 0 has two with every other rank, these have two with rank 0.
struct ProcessLinks {
  std::vector<ProcessInfo> processes;  ///< by rank
  std::vector<Socket> messages;        ///< by rank; closed where there is none
  std::vector<Socket> liveness;        ///< likewise
};

/// Meets the other processes: rank 0 listens, the others call. Versions and sizes are compared.
/// @throws UsageError when the processes contradict each other; DeviceError when one does not come
/// in time or the port is taken
ProcessLinks meet_processes(const ProcessPlace& place);

}  // namespace tandem
