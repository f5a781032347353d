// The one definition of the quantised formats, against a second one; and every backend against it.

#include <cmath>

#include "backend/cuda/quantization.h"
#include "core/philox.h"
#include "ops/backend_cases.h"
#include "ops/quantized_values.h"
#include "support/catch.h"

namespace tandem::ops {
namespace {

TEST_CASE("An E4M3 code is the nearest number that the format has") {
  // Every float whose lower bits are zero, so all ties among them, and numbers beside them.
  for (uint32_t upper = 0; upper <= 0x7f80u; ++upper) {
    for (const uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float value = kernels::from_bits((upper << 16) | lower);
      if (!(value <= 1e6f)) continue;
      for (const float x : {value, -value}) {
        const float got = fp8_value(fp8_code(x)), wanted = to_e4m3(x);
        if (got != wanted) {
          CAPTURE(x);
          REQUIRE(got == wanted);
        }
      }
    }
  }
  CHECK(fp8_value(fp8_code(INFINITY)) == 448.0f);
  CHECK((fp8_code(NAN) & 0x7f) == 0x7f);
}

TEST_CASE("An E4M3 code keeps every number of the format") {
  for (int code = 0; code < 256; ++code) {
    if ((code & 0x7f) == 0x7f) continue;
    CHECK(fp8_code(fp8_value(static_cast<uint8_t>(code))) == code);
  }
}

TEST_CASE("A 4-bit code is the nearest of -8 to 7, ties to even") {
  CHECK(int4_value(int4_code(0.0f)) == 0.0f);
  CHECK(int4_value(int4_code(0.5f)) == 0.0f);
  CHECK(int4_value(int4_code(1.5f)) == 2.0f);
  CHECK(int4_value(int4_code(-2.5f)) == -2.0f);
  CHECK(int4_value(int4_code(-7.6f)) == -8.0f);
  CHECK(int4_value(int4_code(1e30f)) == 7.0f);
  CHECK(int4_value(int4_code(-1e30f)) == -8.0f);
}

TEST_CASE("Scales of nothing, and of nearly nothing, make codes of zero") {
  for (const float largest : {0.0f, 1e-40f, 0x1p-130f}) {
    CHECK(fp8_scale(largest) == 1.0f);
    CHECK(int4_scale(-largest, 0.0f) == 0.0f);
    CHECK(int4_scale(0.0f, largest) == 0.0f);
    CHECK(fp8_value(fp8_code(largest * inverse_scale(fp8_scale(largest)))) == 0.0f);
    CHECK(int4_value(int4_code(largest * inverse_scale(int4_scale(0.0f, largest)))) == 0.0f);
  }
}

TEST_CASE("A 4-bit scale maps the largest magnitude to -8, whatever its sign") {
  CHECK(int4_scale(-2.0f, 1.0f) == 0.25f);
  CHECK(int4_scale(-1.0f, 2.0f) == -0.25f);
  CHECK(int4_scale(-2.0f, 2.0f) == 0.25f);
  CHECK(int4_code(2.0f * inverse_scale(-0.25f)) == 0);
}

/// The weight as the ops see it: every row looked up as of an embedding.
std::vector<float> looked_up(Bench& bench, const WeightView& table) {
  std::vector<int32_t> ids(static_cast<size_t>(table.rows));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const TensorView hidden = bench.blank({table.rows, table.cols});
  bench.backend().embed(bench.rows(ids, ids, ids, ids), table, hidden, bench.stream());
  return bench.read(hidden);
}

TEST_CASE("A quantised weight is code times scale, to the bit, on every backend") {
  for (const WeightFormat format : {WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128}) {
    for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
      for (const int64_t cols : {1, 64, 127, 128, 129, 320, 500}) {
        constexpr int64_t kRows = 37;
        StoredMatrix matrix = random_matrix(kRows, cols, dtype, 21, /*padding=*/5);
        const std::vector<float> wanted = quantized(matrix.values, kRows, cols, format);
        const WeightSpec spec{.cols = cols,
                              .segments = {{.rows = kRows, .format = format}},
                              .paired = false,
                              .has_bias = false};
        for (const BackendCase& backend_case : backend_cases()) {
          Bench bench(backend_case);
          INFO(backend_case.name << ", " << name_of(format) << ", " << name_of(dtype) << ", "
                                 << cols << " inputs");
          CHECK(looked_up(bench, bench.weight(spec, {matrix.host})) == wanted);
        }
      }
    }
  }
}

TEST_CASE("A quantised row or group of zeros stays zero") {
  constexpr int64_t kRows = 3, kCols = 256;
  std::vector<float> values = random_floats(kRows * kCols, 4);
  std::fill_n(values.begin() + kCols, kCols, 0.0f);    // a row
  std::fill_n(values.begin() + 2 * kCols, 128, 0.0f);  // a group
  const HostMatrix host{.data = values.data(),
                        .dtype = DType::kF32,
                        .rows = kRows,
                        .cols = kCols,
                        .row_stride = kCols};
  for (const WeightFormat format : {WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128}) {
    const WeightSpec spec{.cols = kCols,
                          .segments = {{.rows = kRows, .format = format}},
                          .paired = false,
                          .has_bias = false};
    for (const BackendCase& backend_case : backend_cases()) {
      Bench bench(backend_case);
      const std::vector<float> got = looked_up(bench, bench.weight(spec, {host}));
      INFO(backend_case.name << ", " << name_of(format));
      CHECK(std::all_of(got.begin() + kCols, got.begin() + 2 * kCols + 128,
                        [](float value) { return value == 0.0f; }));
      CHECK(got == quantized(values, kRows, kCols, format));
    }
  }
}

}  // namespace
}  // namespace tandem::ops
