#include <algorithm>
#include <span>

#include "backend/backend.h"
#include "kernels/attention_layout.h"

namespace tandem {

std::span<const int> attention_head_dims(DeviceKind kind) {
  if (kind == DeviceKind::kCpu) return {};
  return kernels::kAttentionHeadDims;
}

bool attention_takes(DeviceKind kind, int head_dim) {
  const std::span<const int> taken = attention_head_dims(kind);
  return taken.empty() || std::find(taken.begin(), taken.end(), head_dim) != taken.end();
}

uint64_t attention_workspace_bytes(DeviceKind kind, int heads, int head_dim, int slots) {
  if (kind == DeviceKind::kCpu) return 0;
  // Devices without clusters, whose parts are the smallest: a plan may not know which it is for.
  constexpr int kFewestBlocks = 1;
  return static_cast<uint64_t>(
             kernels::attention_partial_floats(heads, head_dim, slots, kFewestBlocks)) *
         sizeof(float);
}

}  // namespace tandem
