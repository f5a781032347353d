#pragma once

#include <exception>
#include <vector>

#include "comm/process_group.h"
#include "engine/memory_audit.h"
#include "engine/pair_request.h"
#include "plan/overhead_history.h"
#include "tandem/config.h"

namespace tandem {

// What processes settle with each other before they load a pair together. All of them call these
// functions in the same order.

/// The configuration of one process of a group: where no device is named, it drives the GPU of its
/// local rank, or without any GPU the CPU.
/// @throws ConfigError when there are more processes than GPUs on this host
Config config_of_process(Config config, const ProcessGroup& group);

/// @throws ConfigError or ModelError that names the process whose configuration or model differs
/// from rank 0's
void require_same_pair(ProcessGroup& group, const Config& config);

/// The devices of all processes, and the plan that all of them make.
struct SharedPlan {
  Plan plan;
  std::vector<int> process_of;  ///< by device of the plan
};

/// Replaces the devices of the request, this process's until then, by those of all processes,
/// process by process, and plans. The main model takes all of them. The rank that leads is rank 0's
/// in either split: a tensor split counts its ranks from the first process on, a layer split from
/// the last one. The draft sits beside it, or on the device of rank 0's that the configuration
/// names.
/// @param history rank 0's counts
/// @throws as make_plan; MemoryError when the plan does not fit
SharedPlan plan_together(ProcessGroup& group, PairRequest& request, const OverheadHistory& history);

/// Adds what the other processes allocated to rank 0's account, when all have loaded.
void share_memory(ProcessGroup& group, MemoryAudit& audit);

/// Does the work; when it fails, the others learn why before anything is torn down, which they
/// would take for the reason. @param group may be null
template <typename Work>
auto telling_others(ProcessGroup* group, const Work& work) {
  try {
    return work();
  } catch (const std::exception& error) {
    if (group != nullptr) abort_processes(*group, error.what());
    throw;
  }
}

}  // namespace tandem
