#include "plan/overheads.h"

namespace tandem {

Overheads expected_overheads(DeviceKind kind, const std::string& hardware, int ranks,
                             const OverheadHistory& history, bool has_context) {
  if (kind == DeviceKind::kCpu) return {};
  const auto measured = [&](MemoryPurpose purpose, int devices, uint64_t assumed) {
    return history.find({hardware, purpose, devices}).value_or(assumed);
  };
  Overheads overheads;
  overheads.context_bytes =
      measured(MemoryPurpose::kContext, 1,
               has_context ? kAssumedContextGrowthBytes : kAssumedCudaOverheads.context_bytes);
  overheads.workspaces_bytes =
      measured(MemoryPurpose::kWorkspaces, 1, kAssumedCudaOverheads.workspaces_bytes);
  overheads.graphs_bytes = measured(MemoryPurpose::kGraphs, 1, kAssumedCudaOverheads.graphs_bytes);
  if (ranks > 1) {
    overheads.communicator_bytes =
        measured(MemoryPurpose::kCommunicator, ranks, kAssumedCudaOverheads.communicator_bytes);
  }
  return overheads;
}

}  // namespace tandem
