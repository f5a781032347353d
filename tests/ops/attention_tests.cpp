#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/backend_cases.h"
#include "support/catch.h"
#include "tandem/error.h"

namespace tandem::ops {
namespace {

struct Size {
  int heads, kv_heads, head_dim, page_tokens;
  int64_t width() const { return (heads + 2 * kv_heads) * int64_t{head_dim}; }
};

/// Sequences of random queries, keys and values; slots of a sequence are its positions.
struct Sequences {
  Sequences(const Size& chosen, const std::vector<int>& chosen_lengths, uint64_t seed)
      : size(chosen), lengths(chosen_lengths) {
    for (const int length : lengths) {
      qkv.push_back(random_floats(static_cast<size_t>(length * size.width()), ++seed));
    }
  }
  const float* row(int sequence, int slot) const {
    return qkv[static_cast<size_t>(sequence)].data() + slot * size.width();
  }

  Size size;
  std::vector<int> lengths;
  std::vector<std::vector<float>> qkv;
};

/// A row of a pass: which sequence, which slot.
struct Row {
  int sequence, slot;
};

/// A cache whose pages are handed out in no particular order.
class Cache {
 public:
  Cache(Bench& bench, const Sequences& sequences) : bench_(bench), sequences_(sequences) {
    const Size& size = sequences.size;
    const int longest = *std::max_element(sequences.lengths.begin(), sequences.lengths.end());
    const int max_pages = (longest + size.page_tokens - 1) / size.page_tokens;
    const int pages = max_pages * static_cast<int>(sequences.lengths.size());
    std::vector<int32_t> table;
    for (int i = 0; i < pages; ++i) table.push_back((i * 7 + 3) % pages);
    if (pages % 7 == 0) std::reverse(table.begin(), table.end());
    std::sort(table.begin(), table.end());
    table.erase(std::unique(table.begin(), table.end()), table.end());
    for (int i = 0; static_cast<int>(table.size()) < pages; ++i) {
      if (std::find(table.begin(), table.end(), i) == table.end()) table.push_back(i);
    }
    std::rotate(table.begin(), table.begin() + pages / 3, table.end());
    std::reverse(table.begin(), table.begin() + pages / 2);
    const Shape shape{pages, size.kv_heads, size.page_tokens, size.head_dim};
    const DType dtype = bench.backend().kv_dtype();
    view_ = {.keys = bench.memory(dtype, shape),
             .values = bench.memory(dtype, shape),
             .page_table = bench.integers(table).as<const int32_t>(),
             .max_pages = max_pages,
             .page_tokens = size.page_tokens,
             .kv_heads = size.kv_heads,
             .head_dim = size.head_dim};
    fill(0xff);  // NaN: a slot that nobody wrote must not matter
    inv_freq_ = bench.floats(std::vector<float>(static_cast<size_t>(size.head_dim / 2), 0.0f),
                             {size.head_dim / 2});
  }

  const KvLayerView& view() const { return view_; }

  void fill(int byte) {
    const std::vector<std::byte> bytes(view_.keys.bytes(), static_cast<std::byte>(byte));
    for (const TensorView& tensor : {view_.keys, view_.values}) {
      bench_.backend().copy_to_device(tensor.data(), bytes.data(), bytes.size(), bench_.stream());
    }
  }

  /// Appends rows to the cache; angles of zero leave them as they are. Returns their q, k and v on
  /// the device.
  TensorView append(const std::vector<Row>& rows) {
    const TensorView qkv = tensor(rows);
    const Rows described = describe(rows);
    const TensorView angles =
        bench_.memory(DType::kF32, {described.count, sequences_.size.head_dim});
    Backend& backend = bench_.backend();
    backend.rope_angles(described, inv_freq_, angles, bench_.stream());
    backend.rope_and_append(described, qkv, angles, {}, {}, 0.0f, sequences_.size.heads, view_,
                            bench_.stream());
    return qkv;
  }

  void append_all() {
    std::vector<Row> rows;
    for (size_t s = 0; s < sequences_.lengths.size(); ++s) {
      for (int slot = 0; slot < sequences_.lengths[s]; ++slot) {
        rows.push_back({static_cast<int>(s), slot});
      }
    }
    append(rows);
  }

  std::vector<float> attend(const std::vector<Row>& rows, float scale) {
    const Size& size = sequences_.size;
    const TensorView out = bench_.blank_activations(
        {static_cast<int64_t>(rows.size()), int64_t{size.heads} * size.head_dim});
    bench_.backend().attention(describe(rows), tensor(rows), size.heads, scale, view_, out,
                               bench_.stream());
    return bench_.read(out);
  }

 private:
  TensorView tensor(const std::vector<Row>& rows) {
    std::vector<float> values;
    for (const Row& row : rows) {
      const float* from = sequences_.row(row.sequence, row.slot);
      values.insert(values.end(), from, from + sequences_.size.width());
    }
    return bench_.activations(values, {static_cast<int64_t>(rows.size()), sequences_.size.width()});
  }

  Rows describe(const std::vector<Row>& rows) {
    std::vector<int32_t> zeros, slots, sequences;
    for (const Row& row : rows) {
      zeros.push_back(0);
      slots.push_back(row.slot);
      sequences.push_back(row.sequence);
    }
    return bench_.rows(zeros, zeros, slots, sequences);
  }

  Bench& bench_;
  const Sequences& sequences_;
  KvLayerView view_;
  TensorView inv_freq_;
};

struct Expected {
  double value = 0, bound = 0;
};

/// Attention of one head of a row in double precision, element by element, and how far float32 may
/// be off.
std::vector<Expected> reference(const Sequences& sequences, const Row& row, int head,
                                double scale) {
  const Size& size = sequences.size;
  const int dim = size.head_dim;
  const int kv_head = head / (size.heads / size.kv_heads);
  const float* q = sequences.row(row.sequence, row.slot) + head * dim;
  std::vector<double> scores;
  double largest = -std::numeric_limits<double>::infinity();
  double score_error = 0;  // of any score, absolute
  for (int slot = 0; slot <= row.slot; ++slot) {
    const float* k = sequences.row(row.sequence, slot) + (size.heads + kv_head) * dim;
    double score = 0, magnitude = 0;
    for (int d = 0; d < dim; ++d) {
      const double term = static_cast<double>(q[d]) * static_cast<double>(k[d]);
      score += term;
      magnitude += std::abs(term);
    }
    scores.push_back(score * scale);
    score_error = std::max(score_error, sum_error(dim + 1) * magnitude * scale);
    largest = std::max(largest, scores.back());
  }
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - largest);
  // A weight exp(s - m) is off by the errors of s and m, by the subtraction's rounding of a number
  // up to the scores' range, by exp itself and by one rescaling (exp and product) for each part;
  // sums of n terms add their own.
  const int n = row.slot + 1;
  constexpr double kSmallestPart = 64;
  const double parts = n / kSmallestPart + 1;
  const double weight_error = 2 * score_error + 2 * kRoundoff * std::abs(2 * largest) + kExpError +
                              parts * (kExpError + 2 * kRoundoff);
  std::vector<Expected> expected(static_cast<size_t>(dim));
  for (int d = 0; d < dim; ++d) {
    double magnitude = 0;
    for (int slot = 0; slot < n; ++slot) {
      const float* v =
          sequences.row(row.sequence, slot) + (size.heads + size.kv_heads + kv_head) * dim;
      const double term = scores[static_cast<size_t>(slot)] / total * static_cast<double>(v[d]);
      expected[static_cast<size_t>(d)].value += term;
      magnitude += std::abs(term);
    }
    // Numerator and denominator each err; the quotient rounds twice.
    expected[static_cast<size_t>(d)].bound =
        2 * (weight_error + sum_error(n) + kRoundoff) * magnitude;
  }
  return expected;
}

constexpr Size kSizes[] = {{8, 4, 64, 32}, {2, 2, 64, 32}, {6, 2, 128, 16}, {3, 1, 6, 5},
                           {4, 2, 20, 1},  {5, 5, 16, 24}, {7, 1, 80, 48},  {4, 4, 96, 128}};

TEST_CASE("Attention agrees with a softmax in double precision") {
  constexpr float kScale = 0.75f;  // steep enough for weights to differ by orders of magnitude
  for (const BackendCase& backend_case : backend_cases()) {
    for (const Size& size : kSizes) {
      const Sequences sequences(size, {1, 70, 203}, 1);
      Bench bench(backend_case);
      Cache cache(bench, sequences);
      cache.append_all();
      const std::vector<Row> rows = {{0, 0},  {1, 69},  {1, 0},   {2, 63}, {2, 64},
                                     {2, 65}, {2, 202}, {2, 127}, {1, 15}, {2, 128}};
      const std::vector<float> out = cache.attend(rows, kScale);
      for (size_t r = 0; r < rows.size(); ++r) {
        for (int h = 0; h < size.heads; ++h) {
          const std::vector<Expected> expected =
              reference(sequences, rows[r], h, static_cast<double>(kScale));
          for (size_t d = 0; d < expected.size(); ++d) {
            const size_t index = (r * static_cast<size_t>(size.heads) + static_cast<size_t>(h)) *
                                     static_cast<size_t>(size.head_dim) +
                                 d;
            const double bound =
                expected[d].bound + backend_case.output_roundoff * std::abs(expected[d].value);
            const double actual = static_cast<double>(out[index]);
            if (!(std::abs(actual - expected[d].value) <= bound)) {
              INFO(backend_case.name << ", head size " << size.head_dim << ", pages of "
                                     << size.page_tokens << ", row " << r << ", head " << h);
              REQUIRE(actual == Approx(expected[d].value).margin(bound));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("A row's attention has the same bits in any company and on any number of threads") {
  constexpr int kMostRows = 16;
  constexpr float kScale = 0.3f;
  for (const BackendCase& backend_case : backend_cases()) {
    for (const Size& size : {kSizes[0], kSizes[1], kSizes[3], kSizes[6]}) {
      const Sequences sequences(size, {140, 90}, 2);
      std::vector<float> alone;
      const size_t width = static_cast<size_t>(size.heads) * static_cast<size_t>(size.head_dim);
      for (const int threads : {1, 2, 3}) {
        Bench bench(backend_case, threads);
        Cache cache(bench, sequences);
        cache.append_all();
        std::vector<Row> chain;
        for (int r = 0; r < kMostRows; ++r) chain.push_back({0, 120 + r});
        if (alone.empty()) {
          for (const Row& row : chain) {
            const std::vector<float> one = cache.attend({row}, kScale);
            alone.insert(alone.end(), one.begin(), one.end());
          }
        }
        for (int count = 1; count <= kMostRows; ++count) {
          const std::vector<Row> rows(chain.end() - count, chain.end());
          const std::vector<float> expected(
              alone.end() - static_cast<std::ptrdiff_t>(width) * count, alone.end());
          INFO(backend_case.name << ", " << threads << " threads, " << count << " rows");
          REQUIRE(same_bits(cache.attend(rows, kScale), expected));
        }
        // Among rows of another sequence, behind and before.
        std::vector<Row> mixed = {{1, 89}, chain[3], chain[9], {1, 0}, {1, 64}, chain[4]};
        const std::vector<float> out = cache.attend(mixed, kScale);
        for (const auto& [at, from] : {std::pair{1, 3}, {2, 9}, {5, 4}}) {
          const auto begin = static_cast<std::ptrdiff_t>(width);
          REQUIRE(same_bits({out.begin() + at * begin, out.begin() + (at + 1) * begin},
                            {alone.begin() + from * begin, alone.begin() + (from + 1) * begin}));
        }
      }
    }
  }
}

TEST_CASE("What lies behind a row's slot is never seen") {
  for (const BackendCase& backend_case : backend_cases()) {
    for (const Size& size : {kSizes[0], kSizes[3]}) {
      Sequences sequences(size, {150}, 3);
      const std::vector<Row> rows = {{0, 70}, {0, 71}};
      std::vector<std::vector<float>> results;
      for (const float later : {0.5f, -std::numeric_limits<float>::infinity()}) {
        std::fill(sequences.qkv[0].begin() + 72 * size.width(), sequences.qkv[0].end(), later);
        Bench bench(backend_case);
        Cache cache(bench, sequences);
        cache.append_all();
        results.push_back(cache.attend(rows, 0.2f));
      }
      // Row 0 must not see row 1 either, although both are in the pass.
      sequences.qkv[0].resize(static_cast<size_t>(71 * size.width()));
      sequences.qkv[0].resize(static_cast<size_t>(150 * size.width()),
                              std::numeric_limits<float>::quiet_NaN());
      Bench bench(backend_case);
      Cache cache(bench, sequences);
      cache.append_all();
      const std::vector<float> out = cache.attend(rows, 0.2f);
      INFO(backend_case.name);
      CHECK(same_bits(results[0], results[1]));
      const auto width = static_cast<std::ptrdiff_t>(out.size() / 2);
      CHECK(same_bits({out.begin(), out.begin() + width},
                      {results[0].begin(), results[0].begin() + width}));
    }
  }
}

TEST_CASE("Scores far apart neither overflow nor vanish") {
  const Size size{1, 1, 16, 32};
  for (const BackendCase& backend_case : backend_cases()) {
    Sequences sequences(size, {130}, 4);
    for (int slot = 0; slot < 130; ++slot) {
      float* row = sequences.qkv[0].data() + slot * size.width();
      std::fill_n(row, 16, 100.0f);
      std::fill_n(row + 16, 16, slot == 97 ? 100.0f : -100.0f);  // q . k = +-160000
    }
    Bench bench(backend_case);
    Cache cache(bench, sequences);
    cache.append_all();
    const std::vector<float> out = cache.attend({{0, 129}}, 1.0f);
    const float* value = sequences.row(0, 97) + 32;
    INFO(backend_case.name);
    for (int d = 0; d < 16; ++d) CHECK(out[static_cast<size_t>(d)] == value[d]);
  }
}

TEST_CASE("Caches that do not fit the rows are refused") {
  const Size size{4, 2, 16, 8};
  const Sequences sequences(size, {4}, 5);
  for (const BackendCase& backend_case : backend_cases()) {
    Bench bench(backend_case);
    Cache cache(bench, sequences);
    const Rows rows = bench.rows({0}, {0}, {0}, {0});
    const TensorView qkv = bench.blank_activations({1, size.width()});
    const TensorView out = bench.blank_activations({1, 64});
    const auto attend = [&](TensorView in, int heads, const KvLayerView& view, TensorView to) {
      bench.backend().attention(rows, in, heads, 1.0f, view, to, bench.stream());
    };
    KvLayerView wrong = cache.view();
    wrong.head_dim = 8;
    CHECK_THROWS_AS(attend(qkv, 4, wrong, out), ShapeError);
    CHECK_THROWS_AS(attend(bench.blank_activations({1, 7 * 16}), 3, cache.view(),
                           bench.blank_activations({1, 48})),
                    ShapeError);
    CHECK_THROWS_AS(attend(qkv, 4, cache.view(), bench.blank_activations({1, 63})), ShapeError);
  }
}

}  // namespace
}  // namespace tandem::ops
