#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace tandem::ops {

/// One way to compute the ops; every op test runs over all of them. `threads` is for backends on
/// the CPU.
struct BackendCase {
  std::string name;
  std::function<std::unique_ptr<Backend>(int threads)> make;
  /// Unit roundoff of what the ops store their outputs in.
  double output_roundoff = 0x1p-24;
};

/// Those that this build and machine have.
const std::vector<BackendCase>& backend_cases();

/// A backend with a stream and the memory of one test.
class Bench {
 public:
  explicit Bench(const BackendCase& backend_case, int threads = 2);

  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }

  /// Device copies of host values.
  TensorView floats(const std::vector<float>& values, Shape shape);
  TensorView integers(const std::vector<int32_t>& values);
  /// Float32 memory filled with NaN, so that what an op leaves out is seen.
  TensorView blank(Shape shape);
  /// As `floats` and `blank`, in the backend's activation type; `floats` rounds.
  TensorView activations(const std::vector<float>& values, Shape shape);
  TensorView blank_activations(Shape shape);
  /// Uninitialised memory of a type.
  TensorView memory(DType dtype, Shape shape);
  Rows rows(const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
            const std::vector<int32_t>& slots, const std::vector<int32_t>& sequences);
  WeightView weight(const WeightSpec& spec, const std::vector<HostMatrix>& segments,
                    const std::vector<float>& bias = {});

  /// The values of a float32, float16 or bfloat16 tensor.
  std::vector<float> read(const TensorView& tensor);
  std::vector<int32_t> read_integers(const TensorView& tensor);

 private:
  void* allocate(size_t bytes);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::vector<DeviceBuffer> buffers_;
};

/// Reproducible numbers in [-scale, scale].
std::vector<float> random_floats(size_t count, uint64_t seed, float scale = 1.0f);

/// A matrix in a checkpoint's type, and the values it stands for.
struct StoredMatrix {
  std::vector<std::byte> bytes;
  std::vector<float> values;  // (rows, cols)
  HostMatrix host;            // row stride: `padding` elements more than cols
};
StoredMatrix random_matrix(int64_t rows, int64_t cols, DType dtype, uint64_t seed,
                           int64_t padding = 0);

/// True when both hold the same bits.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b);

/// Bound of the relative error of a sum of `terms` products in float32 in any order, each product
/// and each addition rounded: gamma_n of Higham 2002, "Accuracy and stability of numerical
/// algorithms", section 3.1.
constexpr double sum_error(int64_t terms) {
  constexpr double kUnitRoundoff = 0x1p-24;
  const double n = static_cast<double>(terms) + 1;
  return n * kUnitRoundoff / (1 - n * kUnitRoundoff);
}

/// The exponential function and the division behind it, in units of roundoff (2 ulp for exp, see
/// exp_impl.h).
inline constexpr double kExpError = 4 * 0x1p-24;
inline constexpr double kRoundoff = 0x1p-24;

}  // namespace tandem::ops
