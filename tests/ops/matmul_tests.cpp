#include <cmath>
#include <cstring>

#include "ops/backend_cases.h"
#include "ops/quantized_values.h"
#include "support/catch.h"
#include "tandem/error.h"

namespace tandem::ops {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::kBF16, WeightFormat::kF16, WeightFormat::kF32,
                                     WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128};

DType dtype_of(WeightFormat format) {
  if (format == WeightFormat::kF32) return DType::kF32;
  return format == WeightFormat::kF16 ? DType::kF16 : DType::kBF16;
}

/// A fused weight with its exact values, one row after the other over all segments.
struct Fused {
  Fused(const std::vector<int64_t>& segment_rows, int64_t cols, WeightFormat format, bool paired,
        bool has_bias, uint64_t seed) {
    spec = {.cols = cols, .segments = {}, .paired = paired, .has_bias = has_bias};
    for (const int64_t rows : segment_rows) {
      spec.segments.push_back({.rows = rows, .format = format});
      matrices.push_back(random_matrix(rows, cols, dtype_of(format), ++seed, /*padding=*/3));
      const std::vector<float> part = quantized(matrices.back().values, rows, cols, format);
      values.insert(values.end(), part.begin(), part.end());
    }
    if (has_bias) bias = random_floats(static_cast<size_t>(spec.rows()), seed + 100);
  }

  WeightView load(Bench& bench) const {
    std::vector<HostMatrix> hosts;
    for (const StoredMatrix& matrix : matrices) hosts.push_back(matrix.host);
    return bench.weight(spec, hosts, bias);
  }

  /// Exact output o for a row of x, and the sum of its terms' magnitudes.
  struct Sum {
    double value = 0, magnitude = 0;
  };
  Sum sum(const float* x, int64_t o) const {
    Sum sum;
    for (int64_t k = 0; k < spec.cols; ++k) {
      const double term = static_cast<double>(x[k]) *
                          static_cast<double>(values[static_cast<size_t>(o * spec.cols + k)]);
      sum.value += term;
      sum.magnitude += std::abs(term);
    }
    if (!bias.empty()) {
      sum.value += static_cast<double>(bias[static_cast<size_t>(o)]);
      sum.magnitude += std::abs(static_cast<double>(bias[static_cast<size_t>(o)]));
    }
    return sum;
  }

  WeightSpec spec;
  std::vector<StoredMatrix> matrices;
  std::vector<float> values;
  std::vector<float> bias;
};

double silu(double x) { return x / (1 + std::exp(-x)); }

std::vector<float> product(Bench& bench, const WeightView& weight, Epilogue epilogue,
                           const std::vector<float>& x, int64_t rows,
                           const std::vector<float>& before) {
  const int64_t cols = epilogue == Epilogue::kSiluGate ? weight.rows / 2 : weight.rows;
  const TensorView in = bench.activations(x, {rows, weight.cols});
  const TensorView out = epilogue == Epilogue::kAdd ? bench.floats(before, {rows, cols})
                                                    : bench.blank_activations({rows, cols});
  bench.backend().matmul(in, weight, epilogue, out, bench.stream());
  return bench.read(out);
}

void check_product(Bench& bench, const BackendCase& backend_case, const Fused& fused,
                   int64_t rows) {
  const WeightView weight = fused.load(bench);
  const int64_t cols = fused.spec.cols, outputs = fused.spec.rows();
  const std::vector<float> x = random_floats(static_cast<size_t>(rows * cols), 7);
  const std::vector<float> before = random_floats(static_cast<size_t>(rows * outputs), 8);
  const double relative = sum_error(cols + 2);
  for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kAdd}) {
    const bool add = epilogue == Epilogue::kAdd;
    const std::vector<float> out = product(bench, weight, epilogue, x, rows, before);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < outputs; ++o) {
        const auto index = static_cast<size_t>(r * outputs + o);
        const Fused::Sum sum = fused.sum(x.data() + r * cols, o);
        const double start = add ? static_cast<double>(before[index]) : 0;
        const double bound = relative * (sum.magnitude + std::abs(start)) +
                             (add ? 0 : backend_case.output_roundoff * std::abs(sum.value));
        // REQUIRE costs more than the sum it looks at.
        if (!(std::abs(static_cast<double>(out[index]) - start - sum.value) <= bound)) {
          CAPTURE(r, o, add);
          REQUIRE(static_cast<double>(out[index]) == Approx(start + sum.value).margin(bound));
        }
      }
    }
  }
  if (!fused.spec.paired) return;
  const std::vector<float> out = product(bench, weight, Epilogue::kSiluGate, x, rows, {});
  const int64_t half = outputs / 2;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < half; ++o) {
      const Fused::Sum gate = fused.sum(x.data() + r * cols, o);
      const Fused::Sum up = fused.sum(x.data() + r * cols, o + half);
      const double expected = silu(gate.value) * up.value;
      constexpr double kSteepestSilu = 1.1;  // |silu'| <= 1.0999
      constexpr double kOps =
          4;  // negation aside: 1 + e, the division, the product, exp's argument
      const double bound =
          kSteepestSilu * relative * gate.magnitude * std::abs(up.value) +
          std::abs(silu(gate.value)) * relative * up.magnitude +
          (kExpError + kOps * kRoundoff + backend_case.output_roundoff) * std::abs(expected) +
          relative * relative * gate.magnitude * up.magnitude;
      const double actual = static_cast<double>(out[static_cast<size_t>(r * half + o)]);
      if (!(std::abs(actual - expected) <= bound)) {
        CAPTURE(r, o);
        REQUIRE(actual == Approx(expected).margin(bound));
      }
    }
  }
}

TEST_CASE("Matrix products agree with sums in double precision") {
  struct Size {
    std::vector<int64_t> segments;
    int64_t cols;
    bool paired;
  };
  const std::vector<Size> sizes = {
      {{1}, 1, false},           {{16}, 2, false},          {{17}, 31, false},
      {{48, 16, 16}, 64, false}, {{50, 7, 33}, 129, false}, {{320}, 512, false},
      {{16, 16}, 8, true},       {{5, 5}, 33, true},        {{112, 112}, 96, true},
      {{352, 352}, 128, true},   {{70}, 320, false}};
  for (const BackendCase& backend_case : backend_cases()) {
    for (const WeightFormat format : kFormats) {
      Bench bench(backend_case);
      for (const Size& size : sizes) {
        for (const bool has_bias : {false, true}) {
          INFO(backend_case.name << ", " << name_of(format) << ", " << size.segments.front()
                                 << " first outputs, " << size.cols << " inputs, bias "
                                 << has_bias);
          const Fused fused(size.segments, size.cols, format, size.paired, has_bias, 1);
          for (const int64_t rows : {1, 3, 7}) check_product(bench, backend_case, fused, rows);
        }
      }
    }
  }
}

TEST_CASE("Segments of a weight may have different formats") {
  const WeightFormat third =
      GENERATE(WeightFormat::kF32, WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128);
  for (const BackendCase& backend_case : backend_cases()) {
    Bench bench(backend_case);
    Fused fused({20, 9, 40}, 50, WeightFormat::kBF16, false, true, 5);
    const Fused halves({20, 9, 40}, 50, WeightFormat::kF16, false, true, 5);
    const Fused others({20, 9, 40}, 50, third, false, true, 5);
    fused.matrices[1] = halves.matrices[1];
    fused.spec.segments[1].format = WeightFormat::kF16;
    fused.matrices[2] = others.matrices[2];
    fused.spec.segments[2].format = third;
    fused.values.clear();
    for (size_t i = 0; i < 2; ++i) {
      fused.values.insert(fused.values.end(), fused.matrices[i].values.begin(),
                          fused.matrices[i].values.end());
    }
    fused.values.insert(fused.values.end(), others.values.end() - 40 * 50, others.values.end());
    INFO(backend_case.name);
    check_product(bench, backend_case, fused, 4);
  }
}

TEST_CASE("A weight keeps its values when the checkpoint stores another type") {
  // bf16 in f32, and values with an exact half in every format.
  const StoredMatrix halves = random_matrix(19, 45, DType::kF16, 3);
  for (const BackendCase& backend_case : backend_cases()) {
    for (const WeightFormat format : kFormats) {
      Bench bench(backend_case);
      const WeightSpec spec{.cols = 45,
                            .segments = {{.rows = 19, .format = format}},
                            .paired = false,
                            .has_bias = false};
      const WeightView same = bench.weight(spec, {halves.host});
      std::vector<std::byte> wide(halves.values.size() * sizeof(float));
      std::memcpy(wide.data(), halves.values.data(), wide.size());
      const HostMatrix floats{
          .data = wide.data(), .dtype = DType::kF32, .rows = 19, .cols = 45, .row_stride = 45};
      const WeightView converted = bench.weight(spec, {floats});
      const std::vector<float> x = random_floats(45 * 2, 9);
      INFO(backend_case.name << ", " << name_of(format));
      CHECK(same_bits(product(bench, same, Epilogue::kStore, x, 2, {}),
                      product(bench, converted, Epilogue::kStore, x, 2, {})));
    }
  }
}

TEST_CASE("Half precision weights hold subnormal, largest and infinite values") {
  const std::vector<uint16_t> bits = {0x0001, 0x03ff, 0x0400, 0x7bff,
                                      0x8001, 0xfbff, 0x7c00, 0x3c00};
  const HostMatrix host{.data = bits.data(),
                        .dtype = DType::kF16,
                        .rows = static_cast<int64_t>(bits.size()),
                        .cols = 1,
                        .row_stride = 1};
  const WeightSpec spec{.cols = 1,
                        .segments = {{.rows = host.rows, .format = WeightFormat::kF16}},
                        .paired = false,
                        .has_bias = false};
  for (const BackendCase& backend_case : backend_cases()) {
    Bench bench(backend_case);
    const std::vector<float> out =
        product(bench, bench.weight(spec, {host}), Epilogue::kStore, {1.0f}, 1, {});
    INFO(backend_case.name);
    for (size_t i = 0; i < bits.size(); ++i) CHECK(out[i] == f16_to_float(bits[i]));
  }
}

TEST_CASE("A row of a product has the same bits in any company and on any number of threads") {
  constexpr int64_t kMostRows = 16;
  for (const BackendCase& backend_case : backend_cases()) {
    for (const WeightFormat format : kFormats) {
      for (const bool paired : {false, true}) {
        const std::vector<int64_t> segments =
            paired ? std::vector<int64_t>{90, 90} : std::vector<int64_t>{100, 33, 47};
        const Fused fused(segments, 161, format, paired, true, 11);
        const std::vector<float> x = random_floats(static_cast<size_t>(kMostRows * 161), 12);
        const std::vector<float> before = random_floats(static_cast<size_t>(kMostRows * 180), 13);
        for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kAdd, Epilogue::kSiluGate}) {
          if (epilogue == Epilogue::kSiluGate && !paired) continue;
          std::vector<float> alone;
          for (const int threads : {1, 2, 3}) {
            Bench bench(backend_case, threads);
            const WeightView weight = fused.load(bench);
            for (int64_t rows = 1; rows <= kMostRows; ++rows) {
              // The last rows of x, so that every row is met at every place in a pass.
              const int64_t first = kMostRows - rows;
              const std::vector<float> some(x.begin() + first * 161, x.end());
              const std::vector<float> some_before(before.begin() + first * 180, before.end());
              std::vector<float> out = product(bench, weight, epilogue, some, rows, some_before);
              const size_t width = out.size() / static_cast<size_t>(rows);
              if (rows == 1 && threads == 1) {
                alone.clear();
                for (int64_t r = 0; r < kMostRows; ++r) {
                  const std::vector<float> row(x.begin() + r * 161, x.begin() + (r + 1) * 161);
                  const std::vector<float> row_before(before.begin() + r * 180,
                                                      before.begin() + (r + 1) * 180);
                  const std::vector<float> one =
                      product(bench, weight, epilogue, row, 1, row_before);
                  alone.insert(alone.end(), one.begin(), one.end());
                }
              }
              INFO(backend_case.name << ", " << name_of(format) << ", " << threads << " threads, "
                                     << rows << " rows, epilogue " << static_cast<int>(epilogue));
              const std::vector<float> expected(
                  alone.end() - static_cast<std::ptrdiff_t>(width) * rows, alone.end());
              REQUIRE(same_bits(out, expected));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("Many rows of a prompt have the bits of single rows") {
  for (const BackendCase& backend_case : backend_cases()) {
    Bench bench(backend_case);
    const Fused fused({70}, 40, WeightFormat::kBF16, false, false, 3);
    const WeightView weight = fused.load(bench);
    constexpr int64_t kRows = 150;
    const std::vector<float> x = random_floats(kRows * 40, 4);
    const std::vector<float> all = product(bench, weight, Epilogue::kStore, x, kRows, {});
    for (int64_t r = 0; r < kRows; ++r) {
      const std::vector<float> row(x.begin() + r * 40, x.begin() + (r + 1) * 40);
      const std::vector<float> expected(all.begin() + r * 70, all.begin() + (r + 1) * 70);
      INFO(backend_case.name << ", row " << r);
      REQUIRE(same_bits(product(bench, weight, Epilogue::kStore, row, 1, {}), expected));
    }
  }
}

TEST_CASE("Tensors and weights that do not fit are refused") {
  for (const BackendCase& backend_case : backend_cases()) {
    Bench bench(backend_case);
    const Fused fused({20}, 10, WeightFormat::kBF16, false, false, 1);
    const WeightView weight = fused.load(bench);
    const TensorView x = bench.activations(random_floats(20, 1), {2, 10});
    Backend& backend = bench.backend();
    CHECK_THROWS_AS(backend.matmul(x, weight, Epilogue::kStore, bench.blank_activations({2, 19}),
                                   bench.stream()),
                    ShapeError);
    CHECK_THROWS_AS(backend.matmul(bench.blank_activations({2, 9}), weight, Epilogue::kStore,
                                   bench.blank_activations({2, 20}), bench.stream()),
                    ShapeError);
    CHECK_THROWS_AS(backend.matmul(x, weight, Epilogue::kStore, bench.blank_activations({1, 20}),
                                   bench.stream()),
                    ShapeError);
    CHECK_THROWS_AS(backend.matmul(x, weight, Epilogue::kSiluGate, bench.blank_activations({2, 10}),
                                   bench.stream()),
                    ShapeError);
    WeightSpec wider = fused.spec;
    wider.cols = 11;
    CHECK_THROWS_AS(bench.weight(wider, {fused.matrices[0].host}), ShapeError);
    CHECK_THROWS_AS(bench.weight(fused.spec, {}), ShapeError);
    CHECK_THROWS_AS(bench.weight(fused.spec, {fused.matrices[0].host}, {1.0f}), ShapeError);
  }
}

}  // namespace
}  // namespace tandem::ops
