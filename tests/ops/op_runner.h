#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "backend/backend.h"
#include "support/catch.h"

namespace tandem::test {

/// A backend with a stream, and device buffers that live as long as it.
class OpRunner {
 public:
  explicit OpRunner(const DeviceSpec& device)
      : backend(make_backend(device, 1)), stream(backend->make_stream()) {}

  /// Device memory that holds these floats in the given type (f32 or bf16).
  TensorView floats(const std::vector<float>& values, Shape shape, DType dtype = DType::kF32) {
    if (dtype == DType::kF32) return upload(values.data(), dtype, shape);
    std::vector<uint16_t> bits(values.size());
    for (size_t i = 0; i < values.size(); ++i) bits[i] = float_to_bf16(values[i]);
    return upload(bits.data(), dtype, shape);
  }
  TensorView activations(const std::vector<float>& values, Shape shape) {
    return floats(values, shape, backend->activation_dtype());
  }
  TensorView ints(const std::vector<int32_t>& values) {
    return upload(values.data(), DType::kI32, {static_cast<int64_t>(values.size())});
  }
  template <typename T>
  T* array(const std::vector<T>& values) {
    return static_cast<T*>(
        upload(values.data(), DType::kU8, {static_cast<int64_t>(values.size() * sizeof(T))})
            .data());
  }
  void* room(size_t bytes) {
    buffers_.emplace_back(backend->memory(), bytes, "test");
    return buffers_.back().data();
  }
  template <typename T>
  std::vector<T> fetch(const T* data, size_t count) {
    std::vector<T> values(count);
    backend->copy_to_host(values.data(), data, count * sizeof(T), *stream);
    stream->synchronize();
    return values;
  }
  std::vector<float> fetch(const TensorView& view) {
    const auto count = static_cast<size_t>(view.count());
    if (view.dtype() == DType::kF32) return fetch(view.as<float>(), count);
    std::vector<float> values(count);
    const std::vector<uint16_t> bits = fetch(view.as<uint16_t>(), count);
    for (size_t i = 0; i < count; ++i) values[i] = bf16_to_float(bits[i]);
    return values;
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Stream> stream;

 private:
  TensorView upload(const void* data, DType dtype, Shape shape) {
    const TensorView view(room(static_cast<size_t>(shape.count()) * size_of(dtype) + 1), dtype,
                          shape, backend->device());
    backend->copy_to_device(view.data(), data, view.bytes(), *stream);
    stream->synchronize();
    return view;
  }
  std::vector<DeviceBuffer> buffers_;
};

inline DeviceSpec cuda_device() {
  return {.id = {.kind = DeviceKind::kCuda, .index = 0}, .capacity_bytes = std::nullopt};
}
inline DeviceSpec cpu_device() { return {.id = {}, .capacity_bytes = std::nullopt}; }

/// Whether there is a GPU; says so when not, because the test then shows nothing.
inline bool has_gpu() {
  for (const DeviceInfo& device : list_devices()) {
    if (device.id.kind == DeviceKind::kCuda) return true;
  }
  WARN("no GPU: this test was skipped");
  return false;
}

/// Normal numbers that bfloat16 holds exactly.
inline std::vector<float> random_bf16(size_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = bf16_to_float(float_to_bf16(normal(generator)));
  return values;
}

}  // namespace tandem::test
