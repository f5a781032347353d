#include "op_runner.h"
#include "quantized_values.h"

using namespace tandem;
using namespace tandem::test;

namespace {

constexpr double kFloatEpsilon = 0x1p-24, kBf16Epsilon = 0x1p-8;

struct Case {
  std::vector<int64_t> segments;
  int64_t cols;
  bool paired = false;
  bool bias = false;
};

WeightView load(OpRunner& run, const Case& c, WeightFormat format,
                const std::vector<std::vector<float>>& weights, const std::vector<float>& bias) {
  WeightSpec spec{.cols = c.cols, .segments = {}, .paired = c.paired, .has_bias = c.bias};
  std::vector<HostMatrix> host;
  for (size_t i = 0; i < weights.size(); ++i) {
    spec.segments.push_back({c.segments[i], format});
    host.push_back({weights[i].data(), DType::kF32, c.segments[i], c.cols, c.cols});
  }
  const uint64_t bytes = packed_weight_bytes(run.backend->device().kind, spec);
  const WeightView view = run.backend->load_weight(spec, host, c.bias ? bias : std::vector<float>{},
                                                   run.room(bytes), *run.stream);
  run.stream->synchronize();
  return view;
}

}  // namespace

TEST_CASE("CUDA matmul agrees with a double precision sum and is width invariant", "[cuda]") {
  if (!has_gpu()) return;
  const WeightFormat format = GENERATE(WeightFormat::kBF16, WeightFormat::kF16,
                                       WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128);
  const Case c = GENERATE(
      Case{{48}, 64}, Case{{100}, 320, false, true}, Case{{320, 160, 160}, 320, false, true},
      Case{{176, 176}, 128, true, true}, Case{{512}, 2048}, Case{{640, 640}, 1088, true},
      Case{{33}, 100}, Case{{4096}, 1152}, Case{{80}, 14336},
      // More panels than the GPU's blocks take at once, over inputs that end inside a chunk.
      Case{{8600}, 1280});
  const auto epilogue = c.paired ? Epilogue::kSiluGate : GENERATE(Epilogue::kStore, Epilogue::kAdd);
  CAPTURE(name_of(format), c.segments, c.cols, c.paired, static_cast<int>(epilogue));
  OpRunner run(cuda_device());
  std::vector<std::vector<float>> weights;
  std::vector<float> exact;
  int64_t outputs = 0;
  for (size_t i = 0; i < c.segments.size(); ++i) {
    const auto count = static_cast<size_t>(c.segments[i] * c.cols);
    weights.push_back(random_bf16(count, static_cast<uint32_t>(i + 1), 0.25f));
    const auto q = ops::quantized(weights.back(), c.segments[i], c.cols, format);
    exact.insert(exact.end(), q.begin(), q.end());
    outputs += c.segments[i];
  }
  const std::vector<float> bias = random_bf16(static_cast<size_t>(outputs), 77);
  const WeightView weight = load(run, c, format, weights, bias);

  constexpr int kMostRows = 150;
  const std::vector<float> x = random_bf16(static_cast<size_t>(kMostRows * c.cols), 9);
  const int64_t columns = c.paired ? outputs / 2 : outputs;
  const std::vector<float> before = random_bf16(static_cast<size_t>(kMostRows * columns), 10);
  const DType out_type = epilogue == Epilogue::kAdd ? DType::kF32 : DType::kBF16;
  std::vector<float> widest;
  for (const int rows : {16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, kMostRows}) {
    CAPTURE(rows);
    const auto cells = static_cast<size_t>(rows * columns);
    const TensorView in = run.activations({x.begin(), x.begin() + rows * c.cols}, {rows, c.cols});
    const TensorView out =
        run.floats({before.begin(), before.begin() + rows * columns}, {rows, columns}, out_type);
    run.backend->matmul(in, weight, epilogue, out, *run.stream);
    const std::vector<float> got = run.fetch(out);
    if (rows == 16) widest = got;
    if (rows < 16) REQUIRE(std::memcmp(got.data(), widest.data(), cells * sizeof(float)) == 0);
    if (rows < 16 && rows != 1) continue;
    double worst = 0;
    for (int64_t r = 0; r<rows; r += rows> 16 ? 7 : 1) {
      for (int64_t col = 0; col < columns; ++col) {
        double sums[2] = {}, sizes[2] = {};
        for (int half = 0; half < (c.paired ? 2 : 1); ++half) {
          const int64_t o = col + half * columns;
          for (int64_t k = 0; k < c.cols; ++k) {
            const double term = static_cast<double>(x[static_cast<size_t>(r * c.cols + k)]) *
                                static_cast<double>(exact[static_cast<size_t>(o * c.cols + k)]);
            sums[half] += term;
            sizes[half] += std::fabs(term);
          }
          if (c.bias) sums[half] += static_cast<double>(bias[static_cast<size_t>(o)]);
        }
        // Float32 sums of exact products. Tensor cores truncate what they align, about two units
        // each time; 4-bit codes are summed with an offset 17 times their range.
        const double offset = format == WeightFormat::kInt4Group128 ? 17.0 : 1.0;
        double wanted = sums[0];
        double tolerance =
            sizes[0] * kFloatEpsilon * 4.0 * std::sqrt(static_cast<double>(c.cols)) * offset;
        if (c.paired) {
          const double sigmoid = 1 / (1 + std::exp(-sums[0]));
          wanted = sums[0] * sigmoid * sums[1];
          tolerance = tolerance * (1.1 * std::fabs(sums[1]) + std::fabs(sums[0])) *
                          (1 + sizes[1] / std::max(sizes[0], 1e-9)) +
                      std::fabs(wanted) * 1e-5;
        }
        const auto cell = static_cast<size_t>(r * columns + col);
        if (epilogue == Epilogue::kAdd) wanted += static_cast<double>(before[cell]);
        tolerance += std::fabs(wanted) * (out_type == DType::kBF16 ? kBf16Epsilon : 2e-7) + 1e-6;
        worst = std::max(worst, std::fabs(static_cast<double>(got[cell]) - wanted) / tolerance);
      }
    }
    CHECK(worst <= 1.0);
  }
}

namespace {

/// A norm carried from one matmul to the next, against the same three ops apart. `widths` begins
/// with 16, which the narrower ones must equal bit for bit.
void check_carried_norm(WeightFormat format, int64_t hidden, const std::vector<int>& widths) {
  const int64_t inner = 192, outputs = 176;
  const bool paired = hidden == 320;
  CAPTURE(name_of(format), hidden);
  OpRunner run(cuda_device());
  const auto weight_of = [&](const Case& c, uint32_t seed, std::vector<float>& bias) {
    std::vector<std::vector<float>> weights;
    int64_t rows = 0;
    for (const int64_t segment : c.segments) {
      weights.push_back(random_bf16(static_cast<size_t>(segment * c.cols), seed++, 0.25f));
      rows += segment;
    }
    if (c.bias) bias = random_bf16(static_cast<size_t>(rows), seed);
    return load(run, c, format, weights, bias);
  };
  std::vector<float> bias_down, bias_next;
  const WeightView down = weight_of({{hidden}, inner, false, true}, 1, bias_down);
  const Case after = paired ? Case{{outputs, outputs}, hidden, true, true}
                            : Case{{outputs, 33}, hidden, false, true};
  const WeightView next = weight_of(after, 5, bias_next);
  const Epilogue epilogue = paired ? Epilogue::kSiluGate : Epilogue::kStore;
  const int64_t columns = paired ? outputs : outputs + 33;
  constexpr int kMostRows = 20;
  const auto x = random_bf16(static_cast<size_t>(kMostRows * inner), 11);
  const auto before = random_bf16(static_cast<size_t>(kMostRows * hidden), 12, 8.0f);
  const TensorView norm_weight = run.floats(random_bf16(static_cast<size_t>(hidden), 13), {hidden});
  std::vector<float> widest, widest_sum;
  for (const int rows : widths) {
    CAPTURE(rows);
    const TensorView in = run.activations({x.begin(), x.begin() + rows * inner}, {rows, inner});
    const std::vector<float> start(before.begin(), before.begin() + rows * hidden);
    const auto blank = [&](int64_t cols, DType dtype) {
      return run.floats(std::vector<float>(static_cast<size_t>(rows * cols), 9.0f), {rows, cols},
                        dtype);
    };
    const DType activation = run.backend->activation_dtype();
    const NormedRows normed{blank(hidden, activation),
                            blank(NormedRows::parts(hidden), DType::kF32), 1e-5f};
    const TensorView sum = run.floats(start, {rows, hidden});
    const TensorView out = blank(columns, DType::kF32);
    run.backend->matmul_add_norm(in, down, sum, norm_weight, normed, *run.stream);
    run.backend->matmul_normed(normed, next, epilogue, out, *run.stream);

    const TensorView apart_sum = run.floats(start, {rows, hidden});
    const TensorView apart_normed = blank(hidden, activation), apart = blank(columns, DType::kF32);
    run.backend->matmul(in, down, Epilogue::kAdd, apart_sum, *run.stream);
    run.backend->rms_norm(apart_sum, norm_weight, 1e-5f, apart_normed, *run.stream);
    run.backend->matmul(apart_normed, next, epilogue, apart, *run.stream);

    const std::vector<float> got = run.fetch(out), got_sum = run.fetch(sum);
    REQUIRE(got_sum == run.fetch(apart_sum));
    if (rows == 16) widest = got, widest_sum = got_sum;
    if (rows < 16) {
      REQUIRE(std::memcmp(got.data(), widest.data(), got.size() * sizeof(float)) == 0);
    }
    // One rounding to bfloat16 of every input of the second product, at another scale.
    const std::vector<float> wanted = run.fetch(apart);
    double difference = 0, size = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double d = static_cast<double>(got[i]) - static_cast<double>(wanted[i]);
      difference += d * d;
      size += static_cast<double>(wanted[i]) * static_cast<double>(wanted[i]);
    }
    CHECK(std::sqrt(difference / size) < 2 * kBf16Epsilon);
    CHECK(std::isfinite(difference));
  }
}

}  // namespace

TEST_CASE("CUDA carries an RMS norm from one matmul to the next", "[cuda]") {
  if (!has_gpu()) return;
  const WeightFormat format = GENERATE(WeightFormat::kBF16, WeightFormat::kF16,
                                       WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128);
  const int64_t hidden = GENERATE(int64_t{320}, int64_t{2048}, int64_t{100});
  check_carried_norm(format, hidden, {16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 20});
}

// Few enough launches for compute-sanitizer's racecheck: every format and epilogue once at each
// kind of width.
TEST_CASE("CUDA matmuls of small shapes", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  const WeightFormat format = GENERATE(WeightFormat::kBF16, WeightFormat::kF16,
                                       WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128);
  const int64_t hidden = GENERATE(int64_t{320}, int64_t{100});
  check_carried_norm(format, hidden, {16, 1, 20});
}

TEST_CASE("CUDA embedding reads the packed table of every format", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  const WeightFormat format = GENERATE(WeightFormat::kBF16, WeightFormat::kF16,
                                       WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128);
  const int32_t first_row = GENERATE(0, 5);
  CAPTURE(name_of(format), first_row);
  OpRunner run(cuda_device());
  const Case c{{50}, 200};
  const std::vector<std::vector<float>> weights = {random_bf16(50 * 200, 3)};
  WeightView table = load(run, c, format, weights, {});
  table.first_row = first_row;
  const std::vector<float> exact = ops::quantized(weights[0], 50, 200, format);
  const std::vector<int32_t> tokens = {0, 49, 7, -1, 50, 23};
  Rows rows;
  rows.count = 6;
  rows.tokens = run.ints(tokens);
  const TensorView hidden = run.floats(std::vector<float>(6 * 200, 5.0f), {6, 200});
  run.backend->embed(rows, table, hidden, *run.stream);
  const std::vector<float> got = run.fetch(hidden);
  for (size_t r = 0; r < 6; ++r) {
    for (size_t i = 0; i < 200; ++i) {
      const int32_t row = tokens[r] - first_row;
      const bool known = row >= 0 && row < 50;
      const float wanted = known ? exact[static_cast<size_t>(row) * 200 + i] : 0.0f;
      REQUIRE(std::fabs(got[r * 200 + i] - wanted) <= std::fabs(wanted) * 1e-6f);
    }
  }
}

TEST_CASE("The GPU holds the codes and scales that the CPU holds", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  const WeightFormat format = GENERATE(WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128);
  const int64_t cols = GENERATE(64, 127, 320, 2048);
  CAPTURE(name_of(format), cols);
  constexpr int64_t kRows = 131;
  std::vector<float> values = random_bf16(static_cast<size_t>(kRows * cols), 31, 0.1f);
  // Rows of zeros, of tiny and of huge numbers, and numbers that no bfloat16 holds.
  const float factors[] = {0.0f, 0x1p-130f, 1e-38f, 1e30f, 1.2345678f, 0.333333f};
  for (size_t row = 0; row < std::size(factors); ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      values[row * static_cast<size_t>(cols) + static_cast<size_t>(col)] *= factors[row];
    }
  }
  std::vector<int32_t> tokens(kRows);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  const auto looked_up = [&](const DeviceSpec& device) {
    OpRunner run(device);
    const WeightView table = load(run, {{kRows}, cols}, format, {values}, {});
    Rows rows;
    rows.count = static_cast<int>(kRows);
    rows.tokens = run.ints(tokens);
    const TensorView hidden =
        run.floats(std::vector<float>(static_cast<size_t>(kRows * cols)), {kRows, cols});
    run.backend->embed(rows, table, hidden, *run.stream);
    return run.fetch(hidden);
  };
  const std::vector<float> gpu = looked_up(cuda_device()), cpu = looked_up(cpu_device());
  CHECK(std::memcmp(gpu.data(), cpu.data(), gpu.size() * sizeof(float)) == 0);
}
