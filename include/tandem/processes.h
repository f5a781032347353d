#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "tandem/config.h"

namespace tandem {

struct EngineOptions;
class ProcessGroup;

/// Where this process stands among those that run one engine together, on one host or on several.
struct ProcessPlace {
  static constexpr int kDefaultPort = 29500;
  static constexpr std::chrono::seconds kDefaultPatience{120};

  int rank = 0;
  int world_size = 1;
  /// Among the processes of the host: the GPU that a process drives where no device is named. None:
  /// counted when the processes meet.
  std::optional<int> local_rank;
  std::string address;      ///< of rank 0's host; never empty when `world_size` exceeds 1
  int port = kDefaultPort;  ///< on which rank 0 listens
  std::chrono::milliseconds patience = kDefaultPatience;  ///< for processes that are yet to come
  std::string launcher;  ///< who said so, for messages: "torchrun"; empty where nobody did
};

/// What a person said instead of, or besides, the launcher.
struct ProcessPlaceOptions {
  std::optional<int> rank;
  std::optional<int> world_size;
  std::optional<int> local_rank;
  std::optional<std::string> address;
  std::optional<int> port;
  std::optional<std::chrono::milliseconds> patience;
};

/// Finds a process's place in what the launcher's variables say: torchrun's (RANK, WORLD_SIZE,
/// LOCAL_RANK, MASTER_ADDR, MASTER_PORT), else Open MPI's (OMPI_COMM_WORLD_*), else Slurm's
/// (SLURM_PROCID, SLURM_NTASKS, …). MASTER_ADDR and MASTER_PORT count beside each of them, and the
/// options before all. A world of one process is a process by itself.
/// @param variable the value of an environment variable, or null; `std::getenv` at start-up
/// @throws UsageError for numbers that are none or contradict each other, and where rank 0's host
/// cannot be told
ProcessPlace find_process_place(const ProcessPlaceOptions& options,
                                const std::function<const char*(const char*)>& variable);

/// Meets the other processes at rank 0's address; null for a world of one. The group lives as long
/// as somebody holds it; while it does, every process learns at once when another one dies, and
/// within seconds when one stalls.
/// @throws UsageError when the processes contradict each other; DeviceError when one never comes or
/// the port is taken
std::shared_ptr<ProcessGroup> join_processes(const ProcessPlace& place);

/// 0 is the process that requests enter at; the others call `serve_engine`.
int rank_of(const ProcessGroup& processes);

/// Ends the other processes' part with this reason, as an exception of this process would.
void abort_processes(ProcessGroup& processes, const std::string& reason);

/// Does this process's part (rank above 0) for an engine that rank 0 makes from the same
/// configuration with `Engine::from_config`. Returns when that engine is gone.
/// @param options `processes` is the group
/// @throws as Engine::from_config; DeviceError with one line that names rank and device when any
/// process fails, stalls or dies
void serve_engine(const Config& config, const EngineOptions& options);

}  // namespace tandem
