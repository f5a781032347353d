#include "plan/overheads.h"

namespace tandem {

uint64_t assumed_communicator_bytes(Split split, int ranks) {
  constexpr uint64_t kChain = 704 * kMiB, kSums = 896 * kMiB, kTrees = 576 * kMiB;
  if (ranks == 1) return 0;
  if (split == Split::kLayer) return kChain;
  return ranks == 2 ? kSums : kSums + kTrees;
}

Overheads expected_overheads(DeviceKind kind, const std::string& hardware, int ranks, Split split,
                             const OverheadHistory& history, bool has_context) {
  if (kind == DeviceKind::kCpu) return {};
  const auto measured = [&](MemoryPurpose purpose, uint64_t assumed) {
    return history.find({hardware, purpose}).value_or(assumed);
  };
  Overheads overheads;
  overheads.context_bytes =
      measured(MemoryPurpose::kContext,
               has_context ? kAssumedContextGrowthBytes : kAssumedCudaOverheads.context_bytes);
  overheads.workspaces_bytes =
      measured(MemoryPurpose::kWorkspaces, kAssumedCudaOverheads.workspaces_bytes);
  overheads.graphs_bytes = measured(MemoryPurpose::kGraphs, kAssumedCudaOverheads.graphs_bytes);
  if (ranks > 1) {
    overheads.communicator_bytes =
        history.find({hardware, MemoryPurpose::kCommunicator, ranks, split})
            .value_or(assumed_communicator_bytes(split, ranks));
  }
  return overheads;
}

}  // namespace tandem
