#include "op_runner.h"

using namespace tandem;
using namespace tandem::test;

namespace {

/// One pass of rope_and_append and attention: what comes back, on either backend.
struct Attended {
  std::vector<float> q, out, keys, values;
};

/// As the two ops, or as the one that does both.
enum class Attend { kApart, kTogether };

struct Layout {
  int heads, kv_heads, head_dim;
};

/// Runs `rows` rows of a sequence whose first `cached` positions are already there.
Attended attend(OpRunner& run, const Layout& l, const std::vector<float>& history, int cached,
                int rows, const std::vector<float>& norm, const std::vector<int32_t>& sequences,
                Attend how = Attend::kApart) {
  constexpr int kPageTokens = 32, kMaxPages = 24;
  const int pages = kMaxPages * 2;
  const int64_t width = (l.heads + 2 * l.kv_heads) * l.head_dim;
  const DType type = run.backend->kv_dtype();
  const auto cache_floats = static_cast<size_t>(pages * l.kv_heads * kPageTokens * l.head_dim);
  std::vector<int32_t> table(static_cast<size_t>(pages));
  for (int i = 0; i < pages; ++i) table[static_cast<size_t>(i)] = (i * 7 + 3) % pages;
  KvLayerView cache;
  const Shape shape{pages, l.kv_heads, kPageTokens, l.head_dim};
  cache.keys = run.floats(std::vector<float>(cache_floats, 0.0f), shape, type);
  cache.values = run.floats(std::vector<float>(cache_floats, 0.0f), shape, type);
  cache.page_table = run.array(table);
  cache.max_pages = kMaxPages;
  cache.page_tokens = kPageTokens;
  cache.kv_heads = l.kv_heads;
  cache.head_dim = l.head_dim;
  std::vector<float> inverse(static_cast<size_t>(l.head_dim / 2));
  for (size_t i = 0; i < inverse.size(); ++i) {
    inverse[i] = std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(inverse.size()));
  }
  const TensorView inv_freq = run.floats(inverse, {l.head_dim / 2});
  const TensorView norm_view = norm.empty() ? TensorView() : run.floats(norm, {l.head_dim});
  Attended result;
  // The cached positions of both sequences, then the rows in question.
  for (int part = 0; part < 3; ++part) {
    const int count = part < 2 ? cached : rows;
    std::vector<int32_t> slots, owners;
    std::vector<float> x;
    for (int i = 0; i < count; ++i) {
      const int owner = part < 2 ? part : sequences[static_cast<size_t>(i)];
      const int slot = part < 2 ? i : cached + i;
      slots.push_back(slot);
      owners.push_back(owner);
      const auto from = history.begin() + (owner * 1000 + slot) * width % (1 << 18);
      x.insert(x.end(), from, from + width);
    }
    if (count == 0) continue;
    Rows r;
    r.count = count;
    r.positions = run.ints(slots);
    r.slots = run.ints(slots);
    r.sequences = run.ints(owners);
    const TensorView angles = run.floats(
        std::vector<float>(static_cast<size_t>(count * l.head_dim)), {count, l.head_dim});
    const TensorView qkv = run.activations(x, {count, width});
    const TensorView out =
        run.activations(std::vector<float>(static_cast<size_t>(count * l.heads * l.head_dim), 9.0f),
                        {count, l.heads * l.head_dim});
    run.backend->rope_angles(r, inv_freq, angles, *run.stream);
    const float scale = 1.0f / std::sqrt(static_cast<float>(l.head_dim));
    if (how == Attend::kTogether && part == 2) {
      run.backend->append_and_attend(r, qkv, angles, norm_view, norm_view, 1e-5f, l.heads, scale,
                                     cache, out, *run.stream);
    } else {
      run.backend->rope_and_append(r, qkv, angles, norm_view, norm_view, 1e-5f, l.heads, cache,
                                   *run.stream);
      run.backend->attention(r, qkv, l.heads, scale, cache, out, *run.stream);
    }
    result = {{}, run.fetch(out), run.fetch(cache.keys), run.fetch(cache.values)};
    const std::vector<float> all = run.fetch(qkv);  // k and v need not come back
    for (int i = 0; i < count; ++i) {
      const auto row = all.begin() + i * width;
      result.q.insert(result.q.end(), row, row + l.heads * l.head_dim);
    }
  }
  return result;
}

double relative_error(const std::vector<float>& got, const std::vector<float>& wanted) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(wanted[i]);
    if (std::isnan(d)) return 1e9;
    difference += d * d;
    size += static_cast<double>(wanted[i]) * static_cast<double>(wanted[i]);
  }
  return std::sqrt(difference / size);
}

/// Holds the GPU's attention against the CPU's at the widths of `widths`, the first of which is the
/// widest that goes by the decode kernel; the rows of narrower ones have its bits.
void check_attention(const Layout& layout, int cached, const std::vector<int>& widths) {
  const bool with_norm = cached == 127;
  CAPTURE(layout.heads, layout.kv_heads, layout.head_dim, cached);
  OpRunner cuda(cuda_device()), cpu(cpu_device());
  const int64_t width = (layout.heads + 2 * layout.kv_heads) * layout.head_dim;
  const auto history = random_bf16((1 << 18) + static_cast<size_t>(width), 4);
  const auto norm =
      with_norm ? random_bf16(static_cast<size_t>(layout.head_dim), 5) : std::vector<float>{};
  const std::vector<int32_t> one(100, 0);
  Attended widest;
  for (const int rows : widths) {
    CAPTURE(rows);
    const Attended got = attend(cuda, layout, history, cached, rows, norm, one);
    if (rows == 16) widest = got;
    if (rows < 16) {
      REQUIRE(std::memcmp(got.out.data(), widest.out.data(), got.out.size() * sizeof(float)) == 0);
    }
    if (rows < 16 && rows != 1) continue;
    const Attended wanted = attend(cpu, layout, history, cached, rows, norm, one);
    // bfloat16 roundings: of q, k, v, of the weights and of the result.
    CHECK(relative_error(got.q, wanted.q) < 0x1p-8);
    CHECK(relative_error(got.out, wanted.out) < 4 * 0x1p-8);
  }
}

void check_append_and_attend(const Layout& layout, int cached, const std::vector<int>& widths) {
  const bool with_norm = cached == 120;
  CAPTURE(layout.heads, layout.kv_heads, layout.head_dim, cached);
  OpRunner run(cuda_device());
  const int64_t width = (layout.heads + 2 * layout.kv_heads) * layout.head_dim;
  const auto history = random_bf16((1 << 18) + static_cast<size_t>(width), 4);
  const auto norm =
      with_norm ? random_bf16(static_cast<size_t>(layout.head_dim), 5) : std::vector<float>{};
  for (const bool two_sequences : {false, true}) {
    for (const int rows : widths) {
      CAPTURE(rows, two_sequences);
      std::vector<int32_t> sequences(static_cast<size_t>(rows), 0);
      for (size_t i = 0; two_sequences && i < sequences.size(); ++i) sequences[i] = i / 3 % 2;
      const Attended apart = attend(run, layout, history, cached, rows, norm, sequences);
      const Attended together =
          attend(run, layout, history, cached, rows, norm, sequences, Attend::kTogether);
      REQUIRE(together.out == apart.out);
      REQUIRE(together.keys == apart.keys);
      REQUIRE(together.values == apart.values);
    }
  }
}

}  // namespace

TEST_CASE("CUDA norm and add agree with the CPU", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  const int64_t cols = GENERATE(320, 4096, 16384, 30);
  OpRunner cuda(cuda_device()), cpu(cpu_device());
  const auto x = random_bf16(static_cast<size_t>(16 * cols), 1, 3.0f);
  const auto w = random_bf16(static_cast<size_t>(cols), 2);
  std::vector<float> results[2];
  for (int i = 0; i < 2; ++i) {
    OpRunner& run = i == 0 ? cuda : cpu;
    const TensorView out = run.floats(x, {16, cols});
    run.backend->rms_norm(run.floats(x, {16, cols}), run.floats(w, {cols}), 1e-5f, out,
                          *run.stream);
    run.backend->add(run.floats(x, {16, cols}), out, *run.stream);
    results[i] = run.fetch(out);
  }
  CHECK(relative_error(results[0], results[1]) < 1e-6);
}

TEST_CASE("CUDA leaves the norm of a sum over ranks for the next matmul", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  constexpr int kRanks = 3;
  const int64_t hidden = GENERATE(int64_t{48}, int64_t{320}, int64_t{4096});
  const int64_t rows = GENERATE(int64_t{1}, int64_t{5}, int64_t{16});
  OpRunner run(cuda_device());
  const auto size = static_cast<size_t>(rows * hidden);
  const std::vector<float> terms = random_bf16(size * kRanks, 1, 2.0f);
  const std::vector<float> before = random_bf16(size, 2, 4.0f);
  const std::vector<float> weight = random_bf16(static_cast<size_t>(hidden), 3);
  const int64_t parts = NormedRows::parts(hidden);
  const NormedRows normed{
      run.activations(std::vector<float>(size, 9.0f), {rows, hidden}),
      run.floats(std::vector<float>(static_cast<size_t>(rows * parts), 9.0f), {rows, parts}),
      1e-5f};
  const TensorView sum = run.floats(before, {rows, hidden});
  const TensorView apart = run.floats(before, {rows, hidden});
  const TensorView gathered = run.floats(terms, {kRanks * rows, hidden});
  run.backend->add_parts_norm(gathered, sum, run.floats(weight, {hidden}), normed, *run.stream);
  run.backend->add_parts(gathered, apart, *run.stream);
  const std::vector<float> values = run.fetch(sum);
  CHECK(values == run.fetch(apart));
  const std::vector<float> scaled = run.fetch(normed.values), squares = run.fetch(normed.squares);
  for (size_t i = 0; i < size; ++i) {
    const float expected = values[i] * weight[i % static_cast<size_t>(hidden)];
    REQUIRE(scaled[i] == bf16_to_float(float_to_bf16(expected)));
  }
  for (size_t part = 0; part < squares.size(); ++part) {
    double expected = 0;
    for (size_t i = part * NormedRows::kPart; i < (part + 1) * NormedRows::kPart; ++i) {
      expected += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
    // 16 squares, each rounded, and their sum.
    REQUIRE(squares[part] == Approx(expected).epsilon(17 * 0x1p-24));
  }
}

TEST_CASE("CUDA attention agrees with the CPU at every width, prefill too", "[cuda]") {
  if (!has_gpu()) return;
  const Layout layout = GENERATE(Layout{8, 4, 64}, Layout{8, 2, 128}, Layout{2, 2, 32},
                                 Layout{8, 1, 128}, Layout{4, 2, 96}, Layout{2, 1, 256});
  const int cached = GENERATE(0, 5, 127, 600);
  check_attention(layout, cached, {16, 1, 2, 3, 5, 8, 9, 15, 17, 100});
}

TEST_CASE("CUDA attention in few launches", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  const Layout layout = GENERATE(Layout{4, 2, 64}, Layout{2, 2, 32}, Layout{4, 1, 128},
                                 Layout{2, 1, 96}, Layout{2, 1, 256});
  check_attention(layout, 127, {16, 1, 20});
}

TEST_CASE("CUDA appends and attends in one op as in two", "[cuda]") {
  if (!has_gpu()) return;
  const Layout layout =
      GENERATE(Layout{8, 4, 64}, Layout{8, 2, 128}, Layout{2, 2, 32}, Layout{14, 2, 64},
               Layout{8, 1, 128}, Layout{4, 2, 96}, Layout{2, 1, 256});
  const int cached = GENERATE(0, 5, 120, 600);
  check_append_and_attend(layout, cached, {1, 2, 5, 8, 11, 16, 40});
}

TEST_CASE("CUDA appends and attends in few launches", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  const Layout layout = GENERATE(Layout{4, 2, 64}, Layout{2, 1, 128});
  check_append_and_attend(layout, 120, {5, 20});
}

TEST_CASE("CUDA attention keeps sequences apart", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  const Layout layout{8, 2, 64};
  OpRunner cuda(cuda_device()), cpu(cpu_device());
  const int64_t width = (layout.heads + 2 * layout.kv_heads) * layout.head_dim;
  const auto history = random_bf16((1 << 18) + static_cast<size_t>(width), 6);
  const int rows = GENERATE(6, 16, 70);
  std::vector<int32_t> sequences;
  for (int i = 0; i < rows; ++i) sequences.push_back(i / 3 % 2);
  const Attended got = attend(cuda, layout, history, 200, rows, {}, sequences);
  const Attended wanted = attend(cpu, layout, history, 200, rows, {}, sequences);
  CHECK(relative_error(got.out, wanted.out) < 4 * 0x1p-8);
}

TEST_CASE("A captured CUDA graph replays its work", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  OpRunner run(cuda_device());
  const TensorView x = run.floats(std::vector<float>(1000, 1.0f), {1000});
  const TensorView out = run.floats(std::vector<float>(1000, 0.0f), {1000});
  const auto graph = run.backend->capture(*run.stream, [&] {
    for (int i = 0; i < 3; ++i) run.backend->add(x, out, *run.stream);
  });
  CHECK(run.fetch(out)[999] == 0.0f);
  for (int i = 0; i < 4; ++i) graph->launch(*run.stream);
  CHECK(run.fetch(out)[999] == 12.0f);
}
