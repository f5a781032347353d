// Times the CPU backend's ops one by one, and the chain of all ops of a forward pass, for the
// shapes of the bundled pair. Prints the smallest time of many repetitions, because other programs
// on the machine only ever add to it.
//
//   bench_cpu_ops [--threads N] [--isa portable|avx2|avx512] [--context N] [--repeat N] [--ops 0|1]

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "core/philox.h"
#include "tandem/error.h"

namespace {

using namespace tandem;

struct ModelShape {
  const char* name;
  int hidden, layers, heads, kv_heads, head_dim, mlp, vocab;
  int qkv_rows() const { return (heads + 2 * kv_heads) * head_dim; }
};
constexpr ModelShape kMain{"main", 320, 7, 8, 4, 64, 896, 6144};
constexpr ModelShape kDraft{"draft", 128, 2, 2, 2, 64, 352, 6144};
constexpr int kPageTokens = 32;
constexpr int kMaxRows = 16;
constexpr size_t kArenaBytes = 128 << 20;  // weights, work buffers and cache of either model
constexpr float kEpsilon = 1e-5f;
constexpr float kAttentionScale = 0.125f;

struct Options {
  int threads = 0;
  int context = 300;
  int repeat = 400;
  bool ops = true;  // also one by one
  std::optional<CpuIsa> isa;
};

/// Smallest and median seconds of one call.
struct Timing {
  double least = 0, median = 0;
};

template <typename Function>
Timing time_of(int repeat, Function&& function) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  for (int i = 0; i < repeat; ++i) {
    const Clock::time_point start = Clock::now();
    function();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

/// Random weights and work buffers of one model, and its forward pass.
class Model {
 public:
  Model(CpuBackend& backend, const ModelShape& shape, int context)
      : backend_(backend),
        shape_(shape),
        stream_(backend.make_stream()),
        context_(context),
        arena_(backend.memory(), kArenaBytes, "benchmark") {
    const int mixed = shape.heads * shape.head_dim;
    for (int layer = 0; layer < shape.layers; ++layer) {
      layers_.push_back(
          {.qkv = weight({shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim,
                          shape.kv_heads * shape.head_dim},
                         shape.hidden, false),
           .o = weight({shape.hidden}, mixed, false),
           .gate_up = weight({shape.mlp, shape.mlp}, shape.hidden, true),
           .down = weight({shape.hidden}, shape.mlp, false),
           .cache = {}});
    }
    head_ = weight({shape.vocab}, shape.hidden, false);
    norm_ = floats({shape.hidden});
    hidden_ = floats({kMaxRows, shape.hidden});
    normed_ = floats({kMaxRows, shape.hidden});
    qkv_ = floats({kMaxRows, shape.qkv_rows()});
    mixed_ = floats({kMaxRows, mixed});
    gated_ = floats({kMaxRows, shape.mlp});
    logits_ = floats({kMaxRows, shape.vocab});
    inv_freq_ = floats({shape.head_dim / 2});
    angles_ = floats({kMaxRows, shape.head_dim});
    const int pages = (context + kMaxRows) / kPageTokens + 1;
    auto* table = static_cast<int32_t*>(allocate(static_cast<size_t>(pages) * sizeof(int32_t)));
    for (int i = 0; i < pages; ++i) table[i] = i;
    for (Layer& layer : layers_) {
      const Shape cache{pages, shape.kv_heads, kPageTokens, shape.head_dim};
      layer.cache = {.keys = floats(cache),
                     .values = floats(cache),
                     .page_table = table,
                     .max_pages = pages,
                     .page_tokens = kPageTokens,
                     .kv_heads = shape.kv_heads,
                     .head_dim = shape.head_dim};
    }
    rows_.tokens = integers([](int r) { return 7 * r + 1; });
    rows_.positions = integers([&](int r) { return context + r; });
    rows_.slots = rows_.positions;
    rows_.sequences = integers([](int) { return 0; });
  }

  void report_ops(int count, int repeat) {
    rows_.count = count;
    std::printf("%s, %d rows, context %d\n", shape_.name, count, context_);
    Layer& layer = layers_.front();
    matmul_line("qkv", repeat, normed_, layer.qkv, Epilogue::kStore, qkv_);
    matmul_line("o", repeat, mixed_, layer.o, Epilogue::kAdd, hidden_);
    matmul_line("gate_up", repeat, normed_, layer.gate_up, Epilogue::kSiluGate, gated_);
    matmul_line("down", repeat, gated_, layer.down, Epilogue::kAdd, hidden_);
    matmul_line("head", repeat, normed_, head_, Epilogue::kStore, logits_);
    line("embed", repeat, [&] { backend_.embed(rows_, head_, hidden_, *stream_); });
    line("rms_norm", repeat, [&] { norm(); });
    line("rope_angles", repeat, [&] { backend_.rope_angles(rows_, inv_freq_, angles_, *stream_); });
    line("rope_append", repeat, [&] { rope(layer); });
    line("attention", repeat, [&] { attention(layer); });
  }

  /// Where the time of a pass goes: for each kind of op the smallest sum over a pass.
  void report_breakdown(int count, int repeat) {
    using Clock = std::chrono::steady_clock;
    constexpr const char* kKinds[] = {"embed",     "rope_angles", "rms_norm", "qkv",  "rope_append",
                                      "attention", "o",           "gate_up",  "down", "head"};
    constexpr size_t kCount = std::size(kKinds);
    rows_.count = count;
    std::array<double, kCount> least;
    least.fill(std::numeric_limits<double>::infinity());
    for (int i = 0; i < repeat; ++i) {
      std::array<double, kCount> sums{};
      forward([&](int kind, auto call) {
        const Clock::time_point start = Clock::now();
        call();
        sums[static_cast<size_t>(kind)] +=
            std::chrono::duration<double>(Clock::now() - start).count();
      });
      for (size_t k = 0; k < kCount; ++k) least[k] = std::min(least[k], sums[k]);
    }
    std::printf("%s, %d rows, us in one pass:", shape_.name, count);
    for (size_t k = 0; k < kCount; ++k) std::printf(" %s %.1f", kKinds[k], least[k] * 1e6);
    std::printf("\n");
  }

  void report_chain(int count, int repeat) {
    rows_.count = count;
    const Timing all = time_of(repeat, [&] { forward(); });
    const Timing products = time_of(repeat, [&] { matmuls(); });
    const double weights = static_cast<double>(weight_elements_);
    std::printf(
        "%-6s %2d rows: pass %7.1f us (median %7.1f), matmuls alone %7.1f us = %6.1f GB/s, %6.1f "
        "GFLOP/s\n",
        shape_.name, count, all.least * 1e6, all.median * 1e6, products.least * 1e6,
        weights * 2 / products.least * 1e-9, weights * 2 * count / products.least * 1e-9);
  }

 private:
  struct Layer {
    WeightView qkv, o, gate_up, down;
    KvLayerView cache;
  };

  void* allocate(size_t bytes) { return arena_.take_bytes(bytes); }

  TensorView floats(Shape shape) {
    auto* data = static_cast<float*>(allocate(static_cast<size_t>(shape.count()) * sizeof(float)));
    for (int64_t i = 0; i < shape.count(); ++i) data[i] = next_random();
    return {data, DType::kF32, shape, backend_.device()};
  }

  template <typename Value>
  TensorView integers(Value value) {
    auto* data = static_cast<int32_t*>(allocate(kMaxRows * sizeof(int32_t)));
    for (int r = 0; r < kMaxRows; ++r) data[r] = value(r);
    return {data, DType::kI32, {kMaxRows}, backend_.device()};
  }

  WeightView weight(const std::vector<int>& segment_rows, int cols, bool paired) {
    WeightSpec spec{.cols = cols, .segments = {}, .paired = paired, .has_bias = false};
    std::vector<std::vector<uint16_t>> data;
    std::vector<HostMatrix> matrices;
    for (const int rows : segment_rows) {
      spec.segments.push_back({.rows = rows, .format = WeightFormat::kBF16});
      data.emplace_back();
      for (int i = 0; i < rows * cols; ++i) data.back().push_back(float_to_bf16(next_random()));
      matrices.push_back({.data = data.back().data(),
                          .dtype = DType::kBF16,
                          .rows = rows,
                          .cols = cols,
                          .row_stride = cols});
      weight_elements_ += int64_t{rows} * cols;
    }
    return backend_.load_weight(spec, matrices, {},
                                allocate(packed_weight_bytes(DeviceKind::kCpu, spec)), *stream_);
  }

  float next_random() {
    const PhiloxCounter bits = philox4x32({counter_++, 0, 0, 0}, 1);
    return static_cast<float>(0.1 * (uniform_open(bits[0], bits[1]) - 0.5));
  }

  template <typename Function>
  void line(const char* name, int repeat, Function&& function) {
    const Timing timing = time_of(repeat, function);
    std::printf("  %-12s %7.2f us (median %7.2f)\n", name, timing.least * 1e6, timing.median * 1e6);
  }

  void matmul_line(const char* name, int repeat, TensorView x, const WeightView& w,
                   Epilogue epilogue, TensorView out) {
    const Timing timing = time_of(repeat, [&] { product(x, w, epilogue, out); });
    const double elements = static_cast<double>(w.rows) * static_cast<double>(w.cols);
    std::printf("  %-12s %7.2f us (median %7.2f) %7.1f GB/s %7.1f GFLOP/s\n", name,
                timing.least * 1e6, timing.median * 1e6, elements * 2 / timing.least * 1e-9,
                elements * 2 * rows_.count / timing.least * 1e-9);
  }

  void product(TensorView x, const WeightView& w, Epilogue epilogue, TensorView out) {
    backend_.matmul(x.rows(0, rows_.count), w, epilogue, out.rows(0, rows_.count), *stream_);
  }
  void norm() {
    backend_.rms_norm(hidden_.rows(0, rows_.count), norm_, kEpsilon, normed_.rows(0, rows_.count),
                      *stream_);
  }
  void rope(Layer& layer) {
    backend_.rope_and_append(rows_, qkv_, angles_, {}, {}, kEpsilon, shape_.heads, layer.cache,
                             *stream_);
  }
  void attention(Layer& layer) {
    backend_.attention(rows_, qkv_, shape_.heads, kAttentionScale, layer.cache, mixed_, *stream_);
  }

  /// One pass; every op goes through `op(kind, call)`, kind being an index into kKinds.
  template <typename Op>
  void forward(Op op) {
    op(0, [&] { backend_.embed(rows_, head_, hidden_, *stream_); });
    op(1, [&] { backend_.rope_angles(rows_, inv_freq_, angles_, *stream_); });
    for (Layer& layer : layers_) {
      op(2, [&] { norm(); });
      op(3, [&] { product(normed_, layer.qkv, Epilogue::kStore, qkv_); });
      op(4, [&] { rope(layer); });
      op(5, [&] { attention(layer); });
      op(6, [&] { product(mixed_, layer.o, Epilogue::kAdd, hidden_); });
      op(2, [&] { norm(); });
      op(7, [&] { product(normed_, layer.gate_up, Epilogue::kSiluGate, gated_); });
      op(8, [&] { product(gated_, layer.down, Epilogue::kAdd, hidden_); });
    }
    op(2, [&] { norm(); });
    op(9, [&] { product(normed_, head_, Epilogue::kStore, logits_); });
  }
  void forward() {
    forward([](int, auto call) { call(); });
  }

  void matmuls() {
    for (Layer& layer : layers_) {
      product(normed_, layer.qkv, Epilogue::kStore, qkv_);
      product(mixed_, layer.o, Epilogue::kStore, hidden_);
      product(normed_, layer.gate_up, Epilogue::kSiluGate, gated_);
      product(gated_, layer.down, Epilogue::kStore, hidden_);
    }
    product(normed_, head_, Epilogue::kStore, logits_);
  }

  CpuBackend& backend_;
  ModelShape shape_;
  std::unique_ptr<Stream> stream_;
  int context_;
  uint32_t counter_ = 0;
  int64_t weight_elements_ = 0;
  Arena arena_;
  std::vector<Layer> layers_;
  WeightView head_;
  TensorView norm_, hidden_, normed_, qkv_, mixed_, gated_, logits_, inv_freq_, angles_;
  Rows rows_;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--threads") {
      options.threads = std::stoi(value);
    } else if (name == "--context") {
      options.context = std::stoi(value);
    } else if (name == "--repeat") {
      options.repeat = std::stoi(value);
    } else if (name == "--ops") {
      options.ops = value != "0";
    } else if (name == "--isa" && value == "portable") {
      options.isa = CpuIsa::kPortable;
    } else if (name == "--isa" && value == "avx2") {
      options.isa = CpuIsa::kAvx2;
    } else if (name == "--isa" && value == "avx512") {
      options.isa = CpuIsa::kAvx512;
    } else {
      throw UsageError("unknown option: " + name + " " + value);
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) try {
  const Options options = parse(argc, argv);
  CpuBackend backend(
      DeviceId{}, {.threads = options.threads, .capacity_bytes = std::nullopt, .isa = options.isa});
  std::printf("%s\n", backend.description().c_str());
  for (const ModelShape& shape : {kMain, kDraft}) {
    Model model(backend, shape, options.context);
    if (options.ops) {
      for (const int rows : {1, 4, 8}) model.report_ops(rows, options.repeat);
    }
    for (const int rows : {1, 2, 3, 4, 5, 6, 7, 8, 16}) model.report_chain(rows, options.repeat);
    for (const int rows : {1, 4, 8}) model.report_breakdown(rows, options.repeat);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_cpu_ops: %s\n", error.what());
  return 2;
}
