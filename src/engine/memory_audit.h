#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tandem/ledger.h"
#include "tandem/plan.h"

namespace tandem {

/// Holds what was allocated against what was planned.
class MemoryAudit {
 public:
  /// Starts with every row of the plan that is tandem's, and nothing allocated.
  explicit MemoryAudit(const MemoryPlan& plan);

  /// Adds to what was allocated; a row that the plan lacks appears with 0 planned bytes.
  void add(std::string_view device, std::string_view model, MemoryPurpose purpose, uint64_t bytes);

  /// Notes all that a device handed out for this load, as its memory resource counts it.
  void add_device(std::string_view device, uint64_t allocated_bytes);

  const std::vector<MemoryUse>& uses() const { return uses_; }
  const std::vector<DeviceBytes>& devices() const { return devices_; }  ///< those noted
  /// One line naming the first row of arena memory (weights, cache, activations, logits, round
  /// state) whose use differs from the plan, or else the first device that handed out more or less
  /// than its rows of arena memory say; empty when plan and allocation agree.
  std::string difference() const;

 private:
  std::vector<MemoryUse> uses_;
  std::vector<DeviceBytes> devices_;
};

}  // namespace tandem
