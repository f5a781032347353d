#include "backend/backend.h"
#include "kernels/attention_layout.h"

namespace tandem {

uint64_t attention_workspace_bytes(DeviceKind kind, int heads, int head_dim, int slots) {
  if (kind == DeviceKind::kCpu) return 0;
  // Devices without clusters, whose parts are the smallest: a plan may not know which it is for.
  constexpr int kFewestBlocks = 1;
  return static_cast<uint64_t>(
             kernels::attention_partial_floats(heads, head_dim, slots, kFewestBlocks)) *
         sizeof(float);
}

}  // namespace tandem
