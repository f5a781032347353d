#include "backend/peer_exchange.h"
#include "kernels/peer_layout.h"

namespace tandem {

int64_t peer_memory_bytes(DeviceKind kind, int ranks, int64_t max_words) {
  if (kind != DeviceKind::kCuda || ranks < 2 || ranks > kernels::kMaxPeers) return 0;
  return kernels::peer_memory_bytes(ranks, kernels::peer_blocks(max_words));
}

}  // namespace tandem
