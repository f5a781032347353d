#pragma once

#include <cstdint>

// Packets between GPUs: words that carry the number of their message.
namespace tandem::kernels {

constexpr int kPacketWords = 2;

/// 16 bytes that arrive as two whole halves: a word and a flag, twice.
__device__ __forceinline__ void store_packet(void* to, uint32_t a, uint32_t b, uint32_t flag) {
  asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(a), "r"(flag),
               "r"(b), "r"(flag)
               : "memory");
}

__device__ __forceinline__ uint4 load_packet(const void* from) {
  uint4 packet;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(packet.x), "=r"(packet.y), "=r"(packet.z), "=r"(packet.w)
               : "l"(from)
               : "memory");
  return packet;
}

/// Waits for the packet of message `epoch`; false, and the words as they were, when `abort` was set
/// first.
__device__ __forceinline__ bool take_packet(const uint4* from, uint32_t epoch,
                                            const volatile uint32_t* abort, uint32_t& a,
                                            uint32_t& b) {
  constexpr int kLooks = 4096;  // between two looks over the bus
  for (int look = 1;; ++look) {
    const uint4 packet = load_packet(from);
    if (packet.y == epoch && packet.w == epoch) {
      a = packet.x;
      b = packet.z;
      return true;
    }
    if (look % kLooks == 0 && *abort != 0) return false;
  }
}

}  // namespace tandem::kernels
