#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "core/memory.h"

namespace tandem {

/// Host memory standing for a device's: of a stated size for simulated devices, else the machine's.
/// Thread-safe.
class CpuMemory final : public MemoryResource {
 public:
  CpuMemory(DeviceId device, std::optional<uint64_t> capacity_bytes);

  void* allocate(size_t bytes, std::string_view purpose) override;
  void release(void* data, size_t bytes) noexcept override;
  DeviceId device() const override { return device_; }
  uint64_t capacity_bytes() const override { return capacity_; }
  uint64_t allocated_bytes() const override { return allocated_.load(); }
  /// What is left of a simulated device; else also no more than the machine has available now.
  uint64_t free_bytes() const override;

 private:
  DeviceId device_;
  bool simulated_;
  uint64_t capacity_;
  std::atomic<uint64_t> allocated_{0};
};

/// Bytes of memory that this process may have, and could get without swapping (see HostMemory).
uint64_t physical_memory_bytes();
uint64_t available_memory_bytes();

/// Deletes what `allocate_aligned` returned.
struct AlignedDelete {
  void operator()(void* data) const noexcept;
};
/// Memory aligned to `kDeviceAlignment`, huge pages where it is big. @throws std::bad_alloc
void* allocate_aligned(size_t bytes);

}  // namespace tandem
