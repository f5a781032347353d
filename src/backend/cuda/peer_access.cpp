#include "backend/cuda/peer_access.h"

#include <cuda_runtime_api.h>

#include "backend/backend.h"
#include "backend/cuda/cuda_check.h"
#include "backend/peer_exchange.h"

namespace tandem {

AbortWord::AbortWord(int device) : device_(device) {
  check_cuda(cudaHostAlloc(&word_, sizeof(uint32_t), cudaHostAllocMapped | cudaHostAllocPortable),
             "cudaHostAlloc", device);
  *word() = 0;
}

AbortWord::~AbortWord() { log_cuda(cudaFreeHost(word_), "cudaFreeHost", device_); }

bool can_reach(int device, int other) {
  int can = 0;
  check_cuda(cudaDeviceCanAccessPeer(&can, device, other), "cudaDeviceCanAccessPeer", device);
  return can != 0;
}

void enable_access(int device, int other) {
  check_cuda(cudaSetDevice(device), "cudaSetDevice", device);
  const cudaError_t status = cudaDeviceEnablePeerAccess(other, 0);
  if (status == cudaErrorPeerAccessAlreadyEnabled) {
    (void)cudaGetLastError();
    return;
  }
  check_cuda(status, "cudaDeviceEnablePeerAccess", device);
}

bool open_peers(Backend& one, Backend& other) {
  const DeviceId a = one.device(), b = other.device();
  if (a.kind != DeviceKind::kCuda || b.kind != DeviceKind::kCuda || a == b) return true;
  if (!can_reach(a.index, b.index) || !can_reach(b.index, a.index)) return false;
  enable_access(a.index, b.index);
  enable_access(b.index, a.index);
  return true;
}

}  // namespace tandem
