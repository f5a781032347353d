#include "backend/cuda/cuda_memory.h"

#include <cuda_runtime_api.h>

#include <string>

#include "backend/cuda/cuda_check.h"
#include "core/size.h"
#include "tandem/error.h"

namespace tandem {

void* CudaMemory::allocate(size_t bytes, std::string_view purpose) {
  check_cuda(cudaSetDevice(device_.index), "cudaSetDevice", device_.index);
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    const uint64_t free = free_bytes();
    const uint64_t missing = bytes > free ? bytes - free : 0;
    throw MemoryError(to_string(device_) + ": " + std::string(purpose) + " needs " +
                      format_size(bytes) + ", the device has " + format_size(free) +
                      " free: " + format_size(missing) + " short");
  }
  check_cuda(status, "cudaMalloc", device_.index);
  allocated_ += bytes;
  return data;
}

void CudaMemory::release(void* data, size_t bytes) noexcept {
  log_cuda(cudaFree(data), "cudaFree", device_.index);
  allocated_ -= bytes;
}

uint64_t CudaMemory::capacity_bytes() const {
  size_t free = 0, total = 0;
  check_cuda(cudaSetDevice(device_.index), "cudaSetDevice", device_.index);
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo", device_.index);
  return total;
}

uint64_t CudaMemory::free_bytes() const {
  size_t free = 0, total = 0;
  check_cuda(cudaSetDevice(device_.index), "cudaSetDevice", device_.index);
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo", device_.index);
  return free;
}

}  // namespace tandem
