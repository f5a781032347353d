#pragma once

#include <atomic>

#include "core/memory.h"

namespace tandem {

/// Memory of one GPU, from cudaMalloc; the free figure is the driver's.
class CudaMemory final : public MemoryResource {
 public:
  explicit CudaMemory(DeviceId device) : device_(device) {}

  void* allocate(size_t bytes, std::string_view purpose) override;
  void release(void* data, size_t bytes) noexcept override;
  DeviceId device() const override { return device_; }
  uint64_t capacity_bytes() const override;
  uint64_t allocated_bytes() const override { return allocated_.load(); }
  uint64_t free_bytes() const override;

 private:
  DeviceId device_;
  std::atomic<uint64_t> allocated_{0};
};

}  // namespace tandem
