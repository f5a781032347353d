#include "core/memory.h"

#include <utility>

#include "core/size.h"
#include "tandem/error.h"

namespace tandem {

DeviceBuffer::DeviceBuffer(MemoryResource& memory, size_t bytes, std::string_view purpose)
    : memory_(&memory),
      data_(bytes == 0 ? nullptr : memory.allocate(bytes, purpose)),
      bytes_(bytes) {}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) memory_->release(data_, bytes_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : memory_(other.memory_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

DeviceId DeviceBuffer::device() const {
  return memory_ == nullptr ? DeviceId{} : memory_->device();
}

Arena::Arena(MemoryResource& memory, size_t bytes, std::string purpose)
    : buffer_(memory, bytes, purpose), purpose_(std::move(purpose)) {}

void* Arena::take_bytes(size_t bytes) {
  const size_t padded = align_up(bytes, kDeviceAlignment);
  if (padded > buffer_.bytes() - used_) {
    throw MemoryError(to_string(buffer_.device()) + ": the arena '" + purpose_ +
                      "' was planned with " + format_size(buffer_.bytes()) + "; " +
                      format_size(padded) + " were asked for and " +
                      format_size(buffer_.bytes() - used_) + " are left");
  }
  void* const start = static_cast<std::byte*>(buffer_.data()) + used_;
  used_ += padded;
  return start;
}

TensorView Arena::take(DType dtype, Shape shape) {
  void* const data = take_bytes(static_cast<size_t>(shape.count()) * size_of(dtype));
  return TensorView(data, dtype, shape, buffer_.device());
}

}  // namespace tandem
