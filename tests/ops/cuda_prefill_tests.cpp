#include "op_runner.h"

using namespace tandem;
using namespace tandem::test;

namespace {

struct Case {
  std::vector<int64_t> segments;
  int64_t cols;
  bool paired = false;
  bool bias = false;
};

struct Product {
  WeightSpec spec;
  WeightView view;
};

Product load(OpRunner& run, const Case& c, WeightFormat format,
             const std::vector<std::vector<float>>& weights, const std::vector<float>& bias) {
  Product product;
  product.spec = {.cols = c.cols, .segments = {}, .paired = c.paired, .has_bias = c.bias};
  std::vector<HostMatrix> host;
  for (size_t i = 0; i < weights.size(); ++i) {
    product.spec.segments.push_back({c.segments[i], format});
    host.push_back({weights[i].data(), DType::kF32, c.segments[i], c.cols, c.cols});
  }
  void* const room = run.room(packed_weight_bytes(run.backend->device().kind, product.spec));
  product.view = run.backend->load_weight(product.spec, host, c.bias ? bias : std::vector<float>{},
                                          room, *run.stream);
  run.stream->synchronize();
  return product;
}

/// Multiplies with the packed weights, then through the library, and holds one against the other.
void check_wide_product(const Case& c, WeightFormat format, Epilogue epilogue, int rows) {
  CAPTURE(name_of(format), c.segments, c.cols, c.paired, c.bias, static_cast<int>(epilogue), rows);
  OpRunner run(cuda_device());
  std::vector<std::vector<float>> weights;
  int64_t outputs = 0;
  for (size_t i = 0; i < c.segments.size(); ++i) {
    weights.push_back(random_bf16(static_cast<size_t>(c.segments[i] * c.cols),
                                  static_cast<uint32_t>(i + 1), 0.25f));
    outputs += c.segments[i];
  }
  const std::vector<float> bias = random_bf16(static_cast<size_t>(outputs), 77);
  const Product product = load(run, c, format, weights, bias);
  const int64_t columns = c.paired ? outputs / 2 : outputs;
  const std::vector<float> x = random_bf16(static_cast<size_t>(rows * c.cols), 9);
  const std::vector<float> before = random_bf16(static_cast<size_t>(rows * columns), 10);
  const DType out_type = epilogue == Epilogue::kAdd ? DType::kF32 : DType::kBF16;
  const TensorView in = run.activations(x, {rows, c.cols});
  const auto multiply = [&] {
    const TensorView out = run.floats(before, {rows, columns}, out_type);
    run.backend->matmul(in, product.view, epilogue, out, *run.stream);
    return run.fetch(out);
  };
  const std::vector<float> packed = multiply();  // nothing is lent yet
  const uint64_t bytes = matmul_workspace_bytes(run.backend->device().kind, rows, product.spec);
  CHECK((bytes > 0) == (rows > 48 && format != WeightFormat::kInt4Group128 && c.cols % 8 == 0));
  if (bytes > 0) {
    const TensorView lent(run.room(bytes), DType::kU8, {static_cast<int64_t>(bytes)},
                          run.backend->device());
    run.backend->lend_workspace(lent, *run.stream);
  }
  const std::vector<float> wide = multiply();
  CHECK(std::memcmp(wide.data(), multiply().data(), wide.size() * sizeof(float)) == 0);

  // Both are float32 sums of the same exact products, each off by what cuda_matmul_tests allows.
  double worst = 0;
  for (int64_t r = 0; r < rows; r += 13) {
    for (int64_t col = 0; col < columns; ++col) {
      double sums[2] = {}, sizes[2] = {};
      for (int half = 0; half < (c.paired ? 2 : 1); ++half) {
        int64_t row = col;
        size_t segment = static_cast<size_t>(half);
        if (!c.paired) {
          while (row >= c.segments[segment]) row -= c.segments[segment++];
        }
        for (int64_t k = 0; k < c.cols; ++k) {
          const double term =
              static_cast<double>(x[static_cast<size_t>(r * c.cols + k)]) *
              static_cast<double>(weights[segment][static_cast<size_t>(row * c.cols + k)]);
          sums[half] += term;
          sizes[half] += std::fabs(term);
        }
        if (c.bias)
          sums[half] += static_cast<double>(bias[static_cast<size_t>(col + half * columns)]);
      }
      constexpr double kQuantised = 1.2;  // what quantising may add to the sums and their sizes
      double tolerance =
          2 * kQuantised * sizes[0] * 0x1p-24 * 4.0 * std::sqrt(static_cast<double>(c.cols));
      const auto cell = static_cast<size_t>(r * columns + col);
      const auto a = static_cast<double>(packed[cell]), b = static_cast<double>(wide[cell]);
      if (c.paired) {
        tolerance = tolerance * kQuantised *
                        (1.1 * (std::fabs(sums[1]) + 1) + std::fabs(sums[0]) + 1) *
                        (1 + sizes[1] / std::max(sizes[0], 1e-9)) +
                    2 * std::fabs(a) * 1e-5;
      }
      tolerance += 2 * std::fabs(a) * (out_type == DType::kBF16 ? 0x1p-8 : 2e-7) + 2e-6;
      worst = std::max(worst, std::fabs(a - b) / tolerance);
    }
  }
  CHECK(worst <= 1.0);
}

}  // namespace

TEST_CASE("Wide products through the library agree with those of the packed weights", "[cuda]") {
  if (!has_gpu()) return;
  const WeightFormat format = GENERATE(WeightFormat::kBF16, WeightFormat::kF16,
                                       WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128);
  // More outputs than a slice has; segments that end inside a panel; inputs that end inside a
  // block.
  const Case c = GENERATE(Case{{4200, 520, 520}, 256}, Case{{100, 36, 36}, 328, false, true},
                          Case{{2600, 2600}, 192, true}, Case{{180, 180}, 136, true, true},
                          Case{{48}, 100}, Case{{96}, 4096});
  const auto epilogue = c.paired ? Epilogue::kSiluGate : GENERATE(Epilogue::kStore, Epilogue::kAdd);
  const int rows = GENERATE(33, 129, 300);
  check_wide_product(c, format, epilogue, rows);
}

TEST_CASE("Wide products in few launches", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  const WeightFormat format = GENERATE(WeightFormat::kBF16, WeightFormat::kF16,
                                       WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128);
  const Case c = GENERATE(Case{{100, 36, 36}, 136, false, true}, Case{{180, 180}, 136, true, true});
  check_wide_product(c, format, c.paired ? Epilogue::kSiluGate : Epilogue::kAdd, 65);
}
