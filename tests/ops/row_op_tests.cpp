#include <cmath>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "ops/backend_cases.h"
#include "support/catch.h"
#include "tandem/error.h"

namespace tandem::ops {
namespace {

constexpr int kMostRows = 16;

std::vector<float> piece(const std::vector<float>& values, int64_t first, int64_t count) {
  return {values.begin() + first, values.begin() + first + count};
}

TEST_CASE("Embedding copies rows of the table exactly; other ids give zeros") {
  for (const BackendCase& backend_case : backend_cases()) {
    for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
      for (const bool paired : {false, true}) {
        const WeightFormat format = dtype == DType::kF32   ? WeightFormat::kF32
                                    : dtype == DType::kF16 ? WeightFormat::kF16
                                                           : WeightFormat::kBF16;
        Bench bench(backend_case, 3);
        constexpr int64_t kCols = 37, kHalf = 150;
        const StoredMatrix first = random_matrix(kHalf, kCols, dtype, 1);
        const StoredMatrix second = random_matrix(kHalf, kCols, dtype, 2);
        const WeightSpec spec{
            .cols = kCols,
            .segments = {{.rows = kHalf, .format = format}, {.rows = kHalf, .format = format}},
            .paired = paired,
            .has_bias = false};
        WeightView table = bench.weight(spec, {first.host, second.host});
        table.first_row = 1000;
        const std::vector<int32_t> tokens = {1000, 1149, 1150, 1299, 999, 1300, -1, 1016, 1233};
        const auto count = static_cast<int64_t>(tokens.size());
        const TensorView hidden = bench.blank({count, kCols});
        const Rows rows = bench.rows(tokens, tokens, tokens, tokens);
        bench.backend().embed(rows, table, hidden, bench.stream());
        const std::vector<float> out = bench.read(hidden);
        INFO(backend_case.name << ", " << name_of(format) << ", paired " << paired);
        for (int64_t r = 0; r < count; ++r) {
          const int64_t id = tokens[static_cast<size_t>(r)] - 1000;
          std::vector<float> expected(kCols, 0.0f);
          if (id >= 0 && id < kHalf) expected = piece(first.values, id * kCols, kCols);
          if (id >= kHalf && id < 2 * kHalf) {
            expected = piece(second.values, (id - kHalf) * kCols, kCols);
          }
          CAPTURE(r);
          CHECK(same_bits(piece(out, r * kCols, kCols), expected));
        }
      }
    }
  }
}

TEST_CASE("RMS norm agrees with double precision, and a row with itself in company") {
  constexpr float kEps = 1e-5f;
  for (const BackendCase& backend_case : backend_cases()) {
    for (const int64_t n : {1, 15, 16, 63, 64, 65, 128, 320, 1000, 4096}) {
      const std::vector<float> x = random_floats(static_cast<size_t>(kMostRows * n), 1, 3.0f);
      const std::vector<float> weight = random_floats(static_cast<size_t>(n), 2);
      std::vector<float> first;
      for (const int threads : {1, 2, 3}) {
        Bench bench(backend_case, threads);
        const TensorView scale = bench.floats(weight, {n});
        const auto norm = [&](const std::vector<float>& rows) {
          const auto count = static_cast<int64_t>(rows.size()) / n;
          const TensorView out = bench.blank_activations({count, n});
          bench.backend().rms_norm(bench.floats(rows, {count, n}), scale, kEps, out,
                                   bench.stream());
          return bench.read(out);
        };
        const std::vector<float> all = norm(x);
        if (first.empty()) first = all;
        INFO(backend_case.name << ", " << n << " elements, " << threads << " threads");
        REQUIRE(same_bits(all, first));
        for (int count = 1; count < kMostRows; ++count) {
          const int64_t skipped = (kMostRows - count) * n;
          REQUIRE(same_bits(norm(piece(x, skipped, count * n)), piece(all, skipped, count * n)));
        }
      }
      for (int64_t r = 0; r < kMostRows; ++r) {
        double squares = 0;
        for (int64_t i = 0; i < n; ++i) {
          const auto value = static_cast<double>(x[static_cast<size_t>(r * n + i)]);
          squares += value * value;
        }
        const double factor =
            1 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(kEps));
        // The square root halves the sum's error; mean, eps, root, quotient and two products round.
        constexpr double kOps = 6;
        const double relative = sum_error(n) / 2 + kOps * kRoundoff + backend_case.output_roundoff;
        for (int64_t i = 0; i < n; ++i) {
          const auto index = static_cast<size_t>(r * n + i);
          const double expected = static_cast<double>(x[index]) * factor *
                                  static_cast<double>(weight[static_cast<size_t>(i)]);
          const auto actual = static_cast<double>(first[index]);
          if (!(std::abs(actual - expected) <= relative * std::abs(expected))) {
            INFO(backend_case.name << ", " << n << " elements, row " << r);
            REQUIRE(actual == Approx(expected).epsilon(relative));
          }
        }
      }
    }
  }
}

/// Rows of logits that are hard to choose from: ties, NaNs, infinities.
std::vector<std::vector<float>> rows_with_ties(size_t vocab) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> random = random_floats(vocab, 5, 3.0f);
  std::vector<std::vector<float>> rows(8, std::vector<float>(vocab));
  for (size_t i = 0; i < vocab; ++i) {
    rows[0][i] = random[i];
    rows[1][i] = std::round(random[i]);
    rows[2][i] = -2.0f;
    rows[3][i] = i % 3 == 1 ? kNan : std::round(random[i]);
    rows[4][i] = kNan;
    rows[5][i] = i + 1 < vocab ? kNan : -kInfinity;
    rows[6][i] = -kInfinity;
    rows[7][i] = i + 1 < vocab ? std::round(random[i]) : kInfinity;
  }
  return rows;
}

TEST_CASE("The largest of each share, brought together, are the largest of the whole rows") {
  for (const BackendCase& backend_case : backend_cases()) {
    for (const std::vector<int64_t>& bounds :
         {std::vector<int64_t>{0, 1, 2},
          {0, 50, 99},
          {0, 2048, 4096, 6143},
          {0, 6000},
          {0, 16032, 32064, 48096, 64128, 80160, 96192, 112224, 128256}}) {
      Bench bench(backend_case);
      const int64_t vocab = bounds.back();
      const std::vector<std::vector<float>> rows = rows_with_ties(static_cast<size_t>(vocab));
      const auto count = static_cast<int64_t>(rows.size());
      const auto shares = static_cast<int64_t>(bounds.size()) - 1;
      const auto columns = [&](int64_t begin, int64_t end) {
        std::vector<float> values;
        for (const auto& row : rows) {
          values.insert(values.end(), row.begin() + begin, row.begin() + end);
        }
        return bench.floats(values, {count, end - begin});
      };
      RoundView round;
      round.vocab = static_cast<int>(vocab);
      const TensorView whole = bench.memory(DType::kI32, {count});
      bench.backend().argmax(round, columns(0, vocab), {}, 0, nullptr, whole.as<int32_t>(),
                             bench.stream());
      const TensorView choices = bench.memory(DType::kI32, {shares * count, 2});
      for (int64_t i = 0; i < shares; ++i) {
        const auto share = static_cast<size_t>(i);
        bench.backend().share_argmax(columns(bounds[share], bounds[share + 1]),
                                     static_cast<int>(bounds[share]),
                                     choices.rows(i * count, count), bench.stream());
      }
      const TensorView joined = bench.memory(DType::kI32, {count});
      bench.backend().join_argmax(choices.reshaped({shares, count, 2}), joined.as<int32_t>(),
                                  bench.stream());
      INFO(backend_case.name << ", " << shares << " shares of " << vocab);
      CHECK(bench.read_integers(joined) == bench.read_integers(whole));
    }
  }
}

TEST_CASE("Choices of other shapes are refused") {
  Bench bench(backend_cases().front());
  const TensorView logits = bench.blank({3, 10}), choices = bench.memory(DType::kI32, {2, 2});
  int32_t ids[3];
  CHECK_THROWS_AS(bench.backend().share_argmax(logits, 0, choices, bench.stream()), ShapeError);
  CHECK_THROWS_AS(bench.backend().join_argmax(choices, ids, bench.stream()), ShapeError);
}

TEST_CASE("Angles are cosines and sines of the float32 product") {
  const std::vector<float> inv_freq = {1.0f, 0.37f, 1e-3f, 4e-6f, 0.0f};
  const std::vector<int32_t> positions = {0, 1, 7, 2047, 131071};
  const auto half = static_cast<int64_t>(inv_freq.size());
  for (const BackendCase& backend_case : backend_cases()) {
    Bench bench(backend_case);
    const TensorView angles = bench.blank({static_cast<int64_t>(positions.size()), 2 * half});
    bench.backend().rope_angles(bench.rows(positions, positions, positions, positions),
                                bench.floats(inv_freq, {half}), angles, bench.stream());
    const std::vector<float> out = bench.read(angles);
    constexpr double kBound = 2 * kRoundoff;  // within 1 ulp of a number up to 1
    INFO(backend_case.name);
    for (size_t r = 0; r < positions.size(); ++r) {
      for (size_t i = 0; i < inv_freq.size(); ++i) {
        const float angle = static_cast<float>(positions[r]) * inv_freq[i];
        const size_t at = r * 2 * inv_freq.size() + i;
        CAPTURE(positions[r], inv_freq[i]);
        CHECK(std::abs(static_cast<double>(out[at]) - std::cos(static_cast<double>(angle))) <=
              kBound);
        CHECK(std::abs(static_cast<double>(out[at + inv_freq.size()]) -
                       std::sin(static_cast<double>(angle))) <= kBound);
      }
    }
  }
}

/// One head after norm and rotation in double precision, and the magnitude that errors scale with.
std::vector<double> rotated_head(const float* x, const std::vector<float>& norm, double eps,
                                 const float* angles, int head_dim, double& magnitude) {
  std::vector<double> head(x, x + head_dim);
  if (!norm.empty()) {
    double squares = 0;
    for (const double value : head) squares += value * value;
    const double factor = 1 / std::sqrt(squares / head_dim + eps);
    for (size_t i = 0; i < head.size(); ++i) head[i] *= factor * static_cast<double>(norm[i]);
  }
  std::vector<double> out(head.size());
  const auto half = static_cast<size_t>(head_dim / 2);
  magnitude = 0;
  for (size_t i = 0; i < half; ++i) {
    const auto cosine = static_cast<double>(angles[i]);
    const auto sine = static_cast<double>(angles[half + i]);
    out[i] = head[i] * cosine - head[i + half] * sine;
    out[i + half] = head[i + half] * cosine + head[i] * sine;
    magnitude = std::max(magnitude, std::abs(head[i]) + std::abs(head[i + half]));
  }
  return out;
}

TEST_CASE("Rope rotates queries and appends rotated keys, after a norm where there is one") {
  struct Size {
    int heads, kv_heads, head_dim;
  };
  constexpr float kEps = 1e-6f;
  for (const BackendCase& backend_case : backend_cases()) {
    for (const Size& size : {Size{8, 4, 64}, Size{3, 3, 6}, Size{4, 1, 128}, Size{2, 2, 40}}) {
      for (const bool has_norm : {false, true}) {
        const auto dim = static_cast<size_t>(size.head_dim);
        const int64_t width = (size.heads + 2 * size.kv_heads) * int64_t{size.head_dim};
        const std::vector<float> input = random_floats(static_cast<size_t>(kMostRows * width), 3);
        std::vector<float> q_norm, k_norm;
        if (has_norm) {
          q_norm = random_floats(dim, 4);
          k_norm = random_floats(dim, 5);
        }
        std::vector<int32_t> indices;
        for (int r = 0; r < kMostRows; ++r) indices.push_back(r);
        const std::vector<float> angles =
            random_floats(static_cast<size_t>(kMostRows) * dim, 6);  // any factors will do
        std::vector<float> first_q;
        for (const int threads : {1, 2, 3}) {
          for (const int count : {1, 2, 5, kMostRows}) {
            Bench bench(backend_case, threads);
            const std::vector<int32_t> some(indices.begin(), indices.begin() + count);
            const std::vector<int32_t> zeros(some.size(), 0);
            const Rows rows = bench.rows(zeros, some, some, zeros);
            const Shape pages{2, size.kv_heads, 8, size.head_dim};
            const DType kv = bench.backend().kv_dtype();
            const KvLayerView cache{.keys = bench.memory(kv, pages),
                                    .values = bench.memory(kv, pages),
                                    .page_table = bench.integers({1, 0}).as<const int32_t>(),
                                    .max_pages = 2,
                                    .page_tokens = 8,
                                    .kv_heads = size.kv_heads,
                                    .head_dim = size.head_dim};
            const auto norm = [&](const std::vector<float>& values) {
              return values.empty() ? TensorView() : bench.floats(values, {size.head_dim});
            };
            const TensorView qkv =
                bench.activations(piece(input, 0, count * width), {count, width});
            bench.backend().rope_and_append(
                rows, qkv,
                bench.floats(piece(angles, 0, count * size.head_dim), {count, size.head_dim}),
                norm(q_norm), norm(k_norm), kEps, size.heads, cache, bench.stream());
            const std::vector<float> out = bench.read(qkv);
            INFO(backend_case.name << ", head size " << size.head_dim << ", norm " << has_norm
                                   << ", " << threads << " threads, " << count << " rows");
            for (int r = 0; r < count; ++r) {
              const std::vector<float> q =
                  piece(out, r * width, int64_t{size.heads} * size.head_dim);
              if (count == 1 && threads == 1) first_q = q;
              if (r == 0) REQUIRE(same_bits(q, first_q));
              for (int h = 0; h < size.heads; ++h) {
                double magnitude = 0;
                const std::vector<double> expected =
                    rotated_head(input.data() + r * width + h * size.head_dim, q_norm, kEps,
                                 angles.data() + r * size.head_dim, size.head_dim, magnitude);
                constexpr double kOps = 3 + 6;  // rotation, norm
                const double bound =
                    (sum_error(size.head_dim) + kOps * kRoundoff + backend_case.output_roundoff) *
                    magnitude;
                for (size_t d = 0; d < dim; ++d) {
                  const auto actual = static_cast<double>(q[static_cast<size_t>(h) * dim + d]);
                  if (!(std::abs(actual - expected[d]) <= bound)) {
                    REQUIRE(actual == Approx(expected[d]).margin(bound));
                  }
                }
              }
            }
            // Keys show in attention: a query that sees one slot returns its value; one that sees
            // two weighs them by the scores, whose difference is therefore log(weight / (1 -
            // weight)).
            if (count < 2) continue;
            std::vector<float> probe = piece(input, 0, width);
            const TensorView asked = bench.activations(probe, {1, width});
            const TensorView got =
                bench.blank_activations({1, int64_t{size.heads} * size.head_dim});
            constexpr float kScale = 0.5f;
            bench.backend().attention(bench.rows({0}, {0}, {1}, {0}), asked, size.heads, kScale,
                                      cache, got, bench.stream());
            const std::vector<float> mixed = bench.read(got);
            for (int h = 0; h < size.heads; ++h) {
              const int kv_head = h / (size.heads / size.kv_heads);
              double scores[2], errors = 0;
              for (int slot = 0; slot < 2; ++slot) {
                double magnitude = 0;
                const std::vector<double> key = rotated_head(
                    input.data() + slot * width + (size.heads + kv_head) * size.head_dim, k_norm,
                    kEps, angles.data() + slot * size.head_dim, size.head_dim, magnitude);
                scores[slot] = 0;
                for (size_t d = 0; d < dim; ++d) {
                  const auto q = static_cast<double>(probe[static_cast<size_t>(h) * dim + d]);
                  scores[slot] += q * key[d] * static_cast<double>(kScale);
                  errors += std::abs(q) * magnitude * static_cast<double>(kScale);
                }
              }
              const double weight = 1 / (1 + std::exp(scores[1] - scores[0]));
              constexpr double kOps = 16;  // norm, rotation, softmax and mix
              const double bound =
                  (2 * sum_error(size.head_dim) + kOps * kRoundoff) * (errors + 2) +
                  backend_case.output_roundoff;
              for (size_t d = 0; d < dim; ++d) {
                const size_t column =
                    static_cast<size_t>(size.heads + size.kv_heads + kv_head) * dim + d;
                const double expected =
                    weight * static_cast<double>(input[column]) +
                    (1 - weight) * static_cast<double>(input[static_cast<size_t>(width) + column]);
                const auto actual = static_cast<double>(mixed[static_cast<size_t>(h) * dim + d]);
                if (!(std::abs(actual - expected) <= bound)) {
                  REQUIRE(actual == Approx(expected).margin(bound));
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST_CASE("Adding adds every element once") {
  for (const BackendCase& backend_case : backend_cases()) {
    for (const int64_t n : {1, 17, 320, 100001}) {
      Bench bench(backend_case, 3);
      const std::vector<float> x = random_floats(static_cast<size_t>(n), 1);
      std::vector<float> sum = random_floats(static_cast<size_t>(n), 2);
      const TensorView out = bench.floats(sum, {1, n});
      bench.backend().add(bench.floats(x, {1, n}), out, bench.stream());
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += x[i];
      INFO(backend_case.name << ", " << n << " elements");
      CHECK(same_bits(bench.read(out), sum));
      CHECK_THROWS_AS(bench.backend().add(bench.blank({1, n + 1}), out, bench.stream()),
                      ShapeError);
    }
  }
}

TEST_CASE("The kernels' exponential function stays within 2 ulp") {
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (!has_isa(isa)) continue;
    const CpuKernels& kernels = cpu_kernels(isa);
    std::vector<float> x;
    for (float value = -87.3f; value < 88.0f; value += 0.00137f) x.push_back(value);
    std::vector<float> out(x.size());
    const auto n = static_cast<int64_t>(x.size());
    kernels.exp_sum(x.data(), 0.0f, 1.0f, n, out.data());
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = std::exp(static_cast<double>(x[i]));
      const auto rounded = static_cast<float>(expected);
      const double ulp = static_cast<double>(std::nextafter(rounded, INFINITY) - rounded);
      worst = std::max(worst, std::abs(static_cast<double>(out[i]) - expected) / ulp);
    }
    INFO(name_of(isa) << ": off by " << worst << " ulp");
    CHECK(worst <= 2);

    const std::vector<float> special = {-INFINITY, -1000.0f, -87.5f, 0.0f, -0.0f, NAN, 1.0f};
    std::vector<float> results(special.size());
    kernels.exp_sum(special.data(), 0.0f, 1.0f, 7, results.data());
    CHECK(results[0] == 0.0f);
    CHECK(results[1] == 0.0f);
    CHECK(results[2] == 0.0f);
    CHECK(results[3] == 1.0f);
    CHECK(results[4] == 1.0f);
    CHECK(std::isnan(results[5]));

    // The sum leaves out nothing and reads nothing behind the end.
    for (const int64_t count : {0, 1, 15, 16, 17, 100}) {
      double expected = 0;
      for (int64_t i = 0; i < count; ++i) {
        expected += std::exp(static_cast<double>(x[static_cast<size_t>(60000 + i)] + 1.0f) * 0.5);
      }
      const float sum = kernels.exp_sum(x.data() + 60000, -1.0f, 0.5f, count, out.data());
      constexpr double kArgumentError = 8 * kRoundoff;  // of an argument below 4
      CHECK(static_cast<double>(sum) ==
            Approx(expected).epsilon(sum_error(count) + kExpError + kArgumentError));
    }
  }
}

TEST_CASE("The kernels find the largest element wherever it is, and scale") {
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (!has_isa(isa)) continue;
    const CpuKernels& kernels = cpu_kernels(isa);
    INFO(name_of(isa));
    CHECK(kernels.max(nullptr, 0) == -INFINITY);
    for (const size_t n : {1, 5, 16, 33, 100}) {
      std::vector<float> x = random_floats(n, n);
      for (size_t at = 0; at < n; ++at) {
        std::vector<float> y = x;
        y[at] = 2.0f;
        REQUIRE(kernels.max(y.data(), static_cast<int64_t>(n)) == 2.0f);
      }
      std::vector<float> scaled(n);
      kernels.scale(x.data(), 0.25f, static_cast<int64_t>(n), scaled.data());
      for (float& value : x) value *= 0.25f;
      CHECK(same_bits(scaled, x));
    }
  }
}

}  // namespace
}  // namespace tandem::ops
