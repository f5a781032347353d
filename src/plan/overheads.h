#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"
#include "core/size.h"
#include "model/shard.h"
#include "plan/overhead_history.h"

namespace tandem {

/// Memory on one device that no formula gives.
struct Overheads {
  uint64_t context_bytes = 0;       ///< once per process; what it still grows by where there is one
  uint64_t workspaces_bytes = 0;    ///< per model
  uint64_t communicator_bytes = 0;  ///< of a model that several devices share
  uint64_t graphs_bytes = 0;        ///< per model
  bool operator==(const Overheads&) const = default;
};

/// Assumed for a GPU until a run has measured them; communicators: `assumed_communicator_bytes`.
inline constexpr Overheads kAssumedCudaOverheads{
    .context_bytes = 512 * kMiB,
    .workspaces_bytes = 32 * kMiB,
    .graphs_bytes = 64 * kMiB,
};

/// What NCCL takes of each of `ranks` GPUs. Its kernels take 390 to 450 MiB and each channel 18 MiB
/// and more, of which it opens as many as the links can feed: 24 between two H100s, for the 872 MiB
/// of a tensor split (2.28); where links are slower, fewer. More than two ranks may be connected as
/// trees besides, with 12 MiB for each channel and neighbour.
uint64_t assumed_communicator_bytes(Split split, int ranks);

/// Assumed for a context that is there already: kernels and their stacks are loaded when they are
/// first used.
inline constexpr uint64_t kAssumedContextGrowthBytes = 128 * kMiB;

/// What to plan for on a device, for a model that `ranks` devices share by `split`: measured, or
/// else assumed.
/// The CPU backend runs without any of these; its communicator exchanges pointers.
/// @param has_context the device's free bytes were read with this process's context on it, which is
///        therefore counted as in use; only what it grows by is still to come
Overheads expected_overheads(DeviceKind kind, const std::string& hardware, int ranks, Split split,
                             const OverheadHistory& history, bool has_context = false);

}  // namespace tandem
