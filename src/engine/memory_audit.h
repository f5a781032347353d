#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tandem/plan.h"

namespace tandem {

/// Holds what was allocated against what was planned.
class MemoryAudit {
 public:
  /// Starts with every row of the plan that is tandem's, and nothing allocated.
  explicit MemoryAudit(const MemoryPlan& plan);

  /// Adds to what was allocated; a row that the plan lacks appears with 0 planned bytes.
  void add(std::string_view device, std::string_view model, MemoryPurpose purpose, uint64_t bytes);

  const std::vector<MemoryUse>& uses() const { return uses_; }
  /// One line naming the first row of arena memory (weights, cache, activations, logits, round
  /// state) whose allocation differs from the plan; empty when none does.
  std::string difference() const;

 private:
  std::vector<MemoryUse> uses_;
};

}  // namespace tandem
