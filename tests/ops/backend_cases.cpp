#include "ops/backend_cases.h"

#include <bit>
#include <cstring>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "core/philox.h"

namespace tandem::ops {
namespace {

/// Half precision of a value that has an exact one: a multiple of 2^-9 below 2.
uint16_t exact_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) == 0) return static_cast<uint16_t>(bits >> 16);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t exponent = ((bits >> 23) & 0xffu) - 112u;
  return static_cast<uint16_t>(sign | (exponent << 10) | ((bits >> 13) & 0x3ffu));
}

}  // namespace

const std::vector<BackendCase>& backend_cases() {
  static const std::vector<BackendCase> cases = [] {
    std::vector<BackendCase> found;
    for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
      if (!has_isa(isa)) continue;
      found.push_back({.name = "cpu, " + std::string(name_of(isa)), .make = [isa](int threads) {
                         return std::make_unique<CpuBackend>(
                             DeviceId{},
                             CpuBackend::Options{
                                 .threads = threads, .capacity_bytes = std::nullopt, .isa = isa});
                       }});
    }
    return found;
  }();
  return cases;
}

Bench::Bench(const BackendCase& backend_case, int threads)
    : backend_(backend_case.make(threads)), stream_(backend_->make_stream()) {}

void* Bench::allocate(size_t bytes) {
  buffers_.emplace_back(backend_->memory(), bytes, "op test");
  return buffers_.back().data();
}

TensorView Bench::memory(DType dtype, Shape shape) {
  return {allocate(static_cast<size_t>(shape.count()) * size_of(dtype)), dtype, shape,
          backend_->device()};
}

TensorView Bench::floats(const std::vector<float>& values, Shape shape) {
  const TensorView view = memory(DType::kF32, shape);
  backend_->copy_to_device(view.data(), values.data(), view.bytes(), *stream_);
  return view;
}

TensorView Bench::integers(const std::vector<int32_t>& values) {
  const TensorView view = memory(DType::kI32, {static_cast<int64_t>(values.size())});
  backend_->copy_to_device(view.data(), values.data(), view.bytes(), *stream_);
  return view;
}

TensorView Bench::blank(Shape shape) {
  return floats(std::vector<float>(static_cast<size_t>(shape.count()),
                                   std::numeric_limits<float>::quiet_NaN()),
                shape);
}

TensorView Bench::activations(const std::vector<float>& values, Shape shape) {
  if (backend_->activation_dtype() == DType::kF32) return floats(values, shape);
  std::vector<uint16_t> rounded;
  for (const float value : values) {
    rounded.push_back(backend_->activation_dtype() == DType::kBF16 ? float_to_bf16(value)
                                                                   : exact_half(value));
  }
  const TensorView view = memory(backend_->activation_dtype(), shape);
  backend_->copy_to_device(view.data(), rounded.data(), view.bytes(), *stream_);
  return view;
}

TensorView Bench::blank_activations(Shape shape) {
  return activations(std::vector<float>(static_cast<size_t>(shape.count()),
                                        std::numeric_limits<float>::quiet_NaN()),
                     shape);
}

Rows Bench::rows(const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
                 const std::vector<int32_t>& slots, const std::vector<int32_t>& sequences) {
  return {.count = static_cast<int>(tokens.size()),
          .tokens = integers(tokens),
          .positions = integers(positions),
          .slots = integers(slots),
          .sequences = integers(sequences)};
}

WeightView Bench::weight(const WeightSpec& spec, const std::vector<HostMatrix>& segments,
                         const std::vector<float>& bias) {
  void* destination = allocate(packed_weight_bytes(backend_->device().kind, spec));
  const WeightView view = backend_->load_weight(spec, segments, bias, destination, *stream_);
  stream_->synchronize();
  return view;
}

std::vector<float> Bench::read(const TensorView& tensor) {
  std::vector<std::byte> bytes(tensor.bytes());
  backend_->copy_to_host(bytes.data(), tensor.data(), bytes.size(), *stream_);
  stream_->synchronize();
  std::vector<float> values(static_cast<size_t>(tensor.count()));
  if (tensor.dtype() == DType::kF32) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, sizeof(bits));
    values[i] = tensor.dtype() == DType::kBF16 ? bf16_to_float(bits) : f16_to_float(bits);
  }
  return values;
}

std::vector<int32_t> Bench::read_integers(const TensorView& tensor) {
  std::vector<int32_t> values(static_cast<size_t>(tensor.count()));
  backend_->copy_to_host(values.data(), tensor.data(), tensor.bytes(), *stream_);
  stream_->synchronize();
  return values;
}

std::vector<float> random_floats(size_t count, uint64_t seed, float scale) {
  std::vector<float> values;
  for (uint32_t i = 0; values.size() < count; ++i) {
    for (const uint32_t bits : philox4x32({i, 0, 0, 0}, seed)) {
      if (values.size() < count)
        values.push_back(scale * static_cast<float>(2 * uniform_open(bits, 0) - 1));
    }
  }
  return values;
}

StoredMatrix random_matrix(int64_t rows, int64_t cols, DType dtype, uint64_t seed,
                           int64_t padding) {
  constexpr float kHalfSteps = 256;  // multiples of 2^-8 within [-1, 1]: exact in every type
  StoredMatrix matrix;
  const int64_t stride = cols + padding;
  matrix.bytes.resize(static_cast<size_t>(rows * stride) * size_of(dtype));
  const std::vector<float> raw = random_floats(static_cast<size_t>(rows * stride), seed);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < stride; ++c) {
      const auto index = static_cast<size_t>(r * stride + c);
      float value = raw[index];
      uint16_t bits = 0;
      if (dtype == DType::kBF16) {
        bits = float_to_bf16(value);
        value = bf16_to_float(bits);
      } else if (dtype == DType::kF16) {
        value = static_cast<float>(static_cast<int>(value * kHalfSteps)) / kHalfSteps;
        bits = exact_half(value);
      }
      std::byte* to = matrix.bytes.data() + index * size_of(dtype);
      if (dtype == DType::kF32) {
        std::memcpy(to, &value, sizeof(value));
      } else {
        std::memcpy(to, &bits, sizeof(bits));
      }
      if (c < cols) matrix.values.push_back(value);
    }
  }
  matrix.host = {.data = matrix.bytes.data(),
                 .dtype = dtype,
                 .rows = rows,
                 .cols = cols,
                 .row_stride = stride};
  return matrix;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace tandem::ops
