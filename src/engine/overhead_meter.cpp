#include "engine/overhead_meter.h"

namespace tandem {
namespace {

/// Bytes that the device lost from one reading to the next beyond what the backend handed out.
std::optional<uint64_t> taken_by_driver(const DeviceReading& from, const DeviceReading& to) {
  const uint64_t explained = to.allocated_bytes - from.allocated_bytes + to.free_bytes;
  if (explained > from.free_bytes) return std::nullopt;
  return from.free_bytes - explained;
}

}  // namespace

DeviceReading read_device(const MemoryResource& memory) {
  return {memory.free_bytes(), memory.allocated_bytes()};
}

MeasuredOverheads measured_overheads(const DeviceReading& before, const DeviceReading& loaded,
                                     const DeviceReading& warm) {
  MeasuredOverheads measured;
  measured.context_bytes = taken_by_driver(before, loaded);
  measured.workspaces_bytes = warm.allocated_bytes - loaded.allocated_bytes;
  measured.graphs_bytes = taken_by_driver(loaded, warm);
  return measured;
}

uint64_t share_of_model(uint64_t bytes, int models) {
  const auto count = static_cast<uint64_t>(models);
  return (bytes + count - 1) / count;
}

void record_overheads(OverheadHistory& history, const std::string& hardware, int models,
                      const MeasuredOverheads& measured) {
  constexpr int kAlone = 1;
  if (measured.context_bytes) {
    history.record({hardware, MemoryPurpose::kContext, kAlone}, *measured.context_bytes);
  }
  history.record({hardware, MemoryPurpose::kWorkspaces, kAlone},
                 share_of_model(measured.workspaces_bytes, models));
  if (measured.graphs_bytes) {
    history.record({hardware, MemoryPurpose::kGraphs, kAlone},
                   share_of_model(*measured.graphs_bytes, models));
  }
}

}  // namespace tandem
