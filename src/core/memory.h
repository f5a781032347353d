#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/device.h"
#include "core/tensor_view.h"

namespace tandem {

/// Where a device's memory comes from. Implemented by each backend; thread-safe.
class MemoryResource {
 public:
  virtual ~MemoryResource() = default;
  /// Never returns null; memory is aligned to `kDeviceAlignment` and not cleared.
  /// @throws MemoryError that names the device, the purpose and the missing bytes
  virtual void* allocate(size_t bytes, std::string_view purpose) = 0;
  virtual void release(void* data, size_t bytes) noexcept = 0;
  virtual DeviceId device() const = 0;
  virtual uint64_t capacity_bytes() const = 0;   ///< of the whole device
  virtual uint64_t allocated_bytes() const = 0;  ///< handed out by this resource at this moment
  virtual uint64_t free_bytes() const = 0;       ///< what the device could still give
};

/// Every allocation and every view carved from an arena starts at a multiple of this.
inline constexpr size_t kDeviceAlignment = 256;

/// Owns one allocation on a device. Move-only; releases in the destructor.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(MemoryResource& memory, size_t bytes, std::string_view purpose);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  DeviceId device() const;

 private:
  MemoryResource* memory_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Host memory that a device's copies may read and write while the host goes on: page-locked for a
/// GPU. Move-only; released in the destructor. Outside every plan, which is about devices.
class HostBuffer {
 public:
  using Release = void (*)(void*) noexcept;
  HostBuffer() = default;
  HostBuffer(void* data, size_t bytes, Release release) : data_(data, release), bytes_(bytes) {}

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }
  size_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<void, Release> data_{nullptr, [](void*) noexcept {}};
  size_t bytes_ = 0;
};

/// One allocation, planned beforehand and carved into views front to back; nothing is ever returned
/// to it.
class Arena {
 public:
  Arena() = default;
  Arena(MemoryResource& memory, size_t bytes, std::string purpose);

  /// @throws MemoryError when the plan was too small: names the purpose, what was asked and what is
  /// left
  TensorView take(DType dtype, Shape shape);
  void* take_bytes(size_t bytes);

  size_t bytes() const { return buffer_.bytes(); }
  size_t used_bytes() const { return used_; }
  const std::string& purpose() const { return purpose_; }

 private:
  DeviceBuffer buffer_;
  std::string purpose_;
  size_t used_ = 0;
};

/// Adds up what a sequence of `Arena::take` calls would use, so that plans and allocations share
/// one formula.
class ArenaSize {
 public:
  ArenaSize& add(DType dtype, const Shape& shape) {
    return add_bytes(static_cast<uint64_t>(shape.count()) * size_of(dtype));
  }
  ArenaSize& add_bytes(uint64_t bytes) {
    total_ += (bytes + kDeviceAlignment - 1) / kDeviceAlignment * kDeviceAlignment;
    return *this;
  }
  uint64_t bytes() const { return total_; }

 private:
  uint64_t total_ = 0;
};

}  // namespace tandem
