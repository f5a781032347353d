#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/memory.h"
#include "plan/overhead_history.h"

namespace tandem {

/// A device's memory at one moment.
struct DeviceReading {
  uint64_t free_bytes = 0;       ///< what the device says, whoever took the rest
  uint64_t allocated_bytes = 0;  ///< what the backend handed out
};
DeviceReading read_device(const MemoryResource& memory);

/// Memory that a load took on a device besides its arenas, in bytes.
struct MeasuredOverheads {
  /// Taken by the driver while the pair was loaded: what the context grew by since the free bytes
  /// were looked at, which is what a plan has to leave. The context itself was there by then, among
  /// the bytes in use. None when it cannot be told, because others gave memory back meanwhile.
  std::optional<uint64_t> context_bytes;
  uint64_t workspaces_bytes = 0;         ///< handed out by the backend in the first rounds
  std::optional<uint64_t> graphs_bytes;  ///< taken by the driver in the first rounds
};

/// @param before when the plan was made
/// @param loaded everything planned is allocated, nothing has run
/// @param warm   rounds of every length have run
/// Memory that other processes take between the readings counts as the driver's.
MeasuredOverheads measured_overheads(const DeviceReading& before, const DeviceReading& loaded,
                                     const DeviceReading& warm);

/// The part of `bytes`, measured for all models of a device together, that one of them is planned
/// with; rounded up.
uint64_t share_of_model(uint64_t bytes, int models);

/// Notes what was measured on a device with `models` models, for the next plan.
void record_overheads(OverheadHistory& history, const std::string& hardware, int models,
                      const MeasuredOverheads& measured);

}  // namespace tandem
