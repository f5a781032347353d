#include "backend/pass_link.h"
#include "backend/peer_exchange.h"
#include "kernels/peer_layout.h"

namespace tandem {

int64_t peer_memory_bytes(DeviceKind kind, int ranks, int64_t max_words) {
  if (kind != DeviceKind::kCuda || ranks < 2 || ranks > kernels::kMaxPeers) return 0;
  return kernels::peer_memory_bytes(ranks, kernels::peer_blocks(max_words));
}

int64_t link_memory_bytes(DeviceKind kind, int ranks, const LinkWords& words) {
  if (kind != DeviceKind::kCuda || ranks < 2 || ranks > kernels::kMaxPeers) return 0;
  return kernels::hop_zone_bytes(words.rows) + kernels::hop_zone_bytes(words.hidden) +
         kernels::hop_counter_bytes(words.rows) + 2 * kernels::hop_counter_bytes(words.hidden);
}

}  // namespace tandem
