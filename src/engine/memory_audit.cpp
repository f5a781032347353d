#include "engine/memory_audit.h"

#include <algorithm>

namespace tandem {
namespace {

/// Whether a formula gives the bytes, so that plan and allocation must agree to the byte.
bool is_exact(MemoryPurpose purpose) {
  switch (purpose) {
    case MemoryPurpose::kWeights:
    case MemoryPurpose::kKvCache:
    case MemoryPurpose::kActivations:
    case MemoryPurpose::kLogits:
    case MemoryPurpose::kRoundState:
      return true;
    default:
      return false;
  }
}

}  // namespace

MemoryAudit::MemoryAudit(const MemoryPlan& plan) {
  for (const DevicePlan& device : plan.devices) {
    for (const MemoryRow& row : device.rows) {
      if (row.purpose == MemoryPurpose::kInUse || row.purpose == MemoryPurpose::kBeyondLimit)
        continue;
      uses_.push_back({device.name, row.model, row.purpose, row.bytes, 0});
    }
  }
}

void MemoryAudit::add(std::string_view device, std::string_view model, MemoryPurpose purpose,
                      uint64_t bytes) {
  if (bytes == 0) return;
  auto use = std::find_if(uses_.begin(), uses_.end(), [&](const MemoryUse& known) {
    return known.device == device && known.model == model && known.purpose == purpose;
  });
  if (use == uses_.end()) {
    use = uses_.insert(use, MemoryUse{std::string(device), std::string(model), purpose, 0, 0});
  }
  use->actual_bytes += bytes;
}

void MemoryAudit::add_device(std::string_view device, uint64_t allocated_bytes) {
  devices_.push_back({std::string(device), allocated_bytes});
}

std::string MemoryAudit::difference() const {
  for (const MemoryUse& use : uses_) {
    if (!is_exact(use.purpose) || use.planned_bytes == use.actual_bytes) continue;
    return use.device + ": " + use.model + " " + std::string(name_of(use.purpose)) +
           " was planned with " + std::to_string(use.planned_bytes) + " bytes and took " +
           std::to_string(use.actual_bytes);
  }
  for (const DeviceBytes& device : devices_) {
    uint64_t planned = 0;
    for (const MemoryUse& use : uses_) {
      if (use.device == device.device && is_exact(use.purpose)) planned += use.planned_bytes;
    }
    if (planned == device.bytes) continue;
    return device.device + ": the load was planned with " + std::to_string(planned) +
           " bytes and took " + std::to_string(device.bytes);
  }
  return "";
}

}  // namespace tandem
