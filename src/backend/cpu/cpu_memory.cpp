#include "backend/cpu/cpu_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>
#include <string>

#include "backend/cpu/host_memory.h"
#include "core/size.h"
#include "tandem/error.h"

namespace tandem {
namespace {

constexpr size_t kHugePage = 2 * kMiB;
constexpr size_t kHugePageFrom = 4 * kMiB;  // smaller blocks would waste more than they gain

}  // namespace

uint64_t physical_memory_bytes() { return read_host_memory().capacity_bytes; }
uint64_t available_memory_bytes() { return read_host_memory().available_bytes; }

void* allocate_aligned(size_t bytes) {
  const size_t alignment = bytes >= kHugePageFrom ? kHugePage : kDeviceAlignment;
  if (bytes > std::numeric_limits<size_t>::max() - alignment) throw std::bad_alloc();
  const size_t size = std::max(align_up(bytes, alignment), uint64_t{alignment});
  void* data = std::aligned_alloc(alignment, size);
  if (data == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (alignment == kHugePage)
    madvise(data, size, MADV_HUGEPAGE);  // a wish: failure costs speed only
#endif
  return data;
}

void AlignedDelete::operator()(void* data) const noexcept { std::free(data); }

CpuMemory::CpuMemory(DeviceId device, std::optional<uint64_t> capacity_bytes)
    : device_(device),
      simulated_(capacity_bytes.has_value()),
      capacity_(capacity_bytes.value_or(physical_memory_bytes())) {}

void* CpuMemory::allocate(size_t bytes, std::string_view purpose) {
  uint64_t allocated = allocated_.load();
  do {
    const uint64_t left = capacity_ - allocated;
    if (bytes > left) {
      throw MemoryError(to_string(device_) + ": " + std::string(purpose) + " needs " +
                        format_size(bytes) + ", " + format_size(bytes - left) + " (" +
                        std::to_string(bytes - left) + " bytes) more than the " +
                        format_size(left) + " left of " + format_size(capacity_));
    }
  } while (!allocated_.compare_exchange_weak(allocated, allocated + bytes));
  try {
    // A system that overcommits would hand this out and kill the process when it is touched.
    if (bytes > physical_memory_bytes()) throw std::bad_alloc();
    return allocate_aligned(bytes);
  } catch (const std::bad_alloc&) {
    allocated_ -= bytes;
    const uint64_t available = available_memory_bytes();
    throw MemoryError(to_string(device_) + ": the system refused " + format_size(bytes) + " for " +
                      std::string(purpose) + ", " +
                      std::to_string(bytes > available ? bytes - available : 0) +
                      " bytes more than the " + format_size(available) + " it has available");
  }
}

void CpuMemory::release(void* data, size_t bytes) noexcept {
  if (data == nullptr) return;
  std::free(data);
  allocated_ -= bytes;
}

uint64_t CpuMemory::free_bytes() const {
  const uint64_t left = capacity_ - allocated_.load();
  return simulated_ ? left : std::min(left, available_memory_bytes());
}

}  // namespace tandem
