#pragma once

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"

// What the sections of bench_kernels share.
namespace tandem::bench {

struct ModelShape {
  const char* name;
  int layers, hidden, heads, kv_heads, head_dim, mlp, vocab;
};
inline constexpr ModelShape kShapes[] = {{"1B", 16, 2048, 32, 8, 64, 8192, 128256},
                                         {"8B", 32, 4096, 32, 8, 128, 14336, 128256}};

/// One model's weights, cache and buffers, filled with random numbers. Its passes of up to
/// `max_rows` rows stand at slots first_slot, first_slot + 1, ...
class Model {
 public:
  Model(const ModelShape& shape, WeightFormat format, int max_rows, int first_slot,
        Backend& backend, Stream& stream)
      : shape_(shape), format_(format), max_rows_(max_rows), backend_(backend), stream_(stream) {
    const int64_t query = int64_t{shape.heads} * shape.head_dim;
    const int64_t qkv = query + 2 * int64_t{shape.kv_heads} * shape.head_dim;
    for (int layer = 0; layer < shape.layers; ++layer) {
      layers_.push_back({weight({qkv}, shape.hidden), weight({shape.hidden}, query),
                         weight({shape.mlp, shape.mlp}, shape.hidden),
                         weight({shape.hidden}, shape.mlp)});
    }
    head_ = weight({shape.vocab}, shape.hidden);
    hidden_ = noise(DType::kF32, {max_rows, shape.hidden});
    normed_ = {noise(DType::kBF16, {max_rows, shape.hidden}),
               noise(DType::kF32, {max_rows, NormedRows::parts(shape.hidden)}), kEpsilon};
    qkv_ = buffer(DType::kBF16, {max_rows, qkv});
    mixed_ = noise(DType::kBF16, {max_rows, query});
    gated_ = noise(DType::kBF16, {max_rows, shape.mlp});
    angles_ = buffer(DType::kF32, {max_rows, shape.head_dim});
    logits_ = buffer(DType::kF32, {std::min(max_rows, kMostLogitsRows), shape.vocab});
    inv_freq_ = noise(DType::kF32, {shape.head_dim / 2});
    norm_ = noise(DType::kF32, {shape.hidden});
    const int pages = (first_slot + max_rows + kPageTokens - 1) / kPageTokens;
    std::vector<int32_t> table, slots;
    for (int i = 0; i < pages; ++i) table.push_back(i);
    for (int i = 0; i < max_rows; ++i) slots.push_back(first_slot + i);
    cache_.page_table = upload(table).as<int32_t>();
    cache_.max_pages = pages;
    cache_.page_tokens = kPageTokens;
    cache_.kv_heads = shape.kv_heads;
    cache_.head_dim = shape.head_dim;
    const Shape kv{pages, shape.kv_heads, kPageTokens, shape.head_dim};
    cache_.keys = noise(DType::kBF16, kv);
    cache_.values = noise(DType::kBF16, kv);
    rows_.positions = rows_.slots = upload(slots);
    rows_.tokens = rows_.sequences = upload(std::vector<int32_t>(slots.size(), 0));
    if (workspace_bytes_ > 0) {
      backend_.lend_workspace(buffer(DType::kU8, {static_cast<int64_t>(workspace_bytes_)}), stream);
    }
  }

  double weight_bytes() const { return weight_bytes_; }
  size_t layers() const { return layers_.size(); }
  double head_bytes() const { return part_bytes_.back(); }
  /// Of one layer's keys and values.
  double cache_bytes() const { return 2.0 * static_cast<double>(cache_.keys.bytes()); }
  double bytes_of(int part) const { return part_bytes_[static_cast<size_t>(part)]; }

  /// One of a layer's four products as the forward runs it: with the norms that ride on it.
  void product(size_t layer, int part, int rows) {
    const WeightView& w = layers_[layer].parts[part];
    const auto cut = [&](const TensorView& view) { return view.rows(0, rows); };
    const NormedRows normed{cut(normed_.values), cut(normed_.squares), kEpsilon};
    if (part == 0) backend_.matmul_normed(normed, w, Epilogue::kStore, cut(qkv_), stream_);
    if (part == 1) {
      backend_.matmul_add_norm(cut(mixed_), w, cut(hidden_), norm_, normed, stream_);
    }
    if (part == 2) backend_.matmul_normed(normed, w, Epilogue::kSiluGate, cut(gated_), stream_);
    if (part == 3) {
      backend_.matmul_add_norm(cut(gated_), w, cut(hidden_), norm_, normed, stream_);
    }
  }
  void norm(int rows) {
    backend_.rms_norm(hidden_.rows(0, rows), norm_, kEpsilon, normed_.values.rows(0, rows),
                      stream_);
  }
  void attend(int rows) {
    rows_.count = rows;
    backend_.append_and_attend(rows_, qkv_.rows(0, rows), angles_.rows(0, rows), {}, {}, kEpsilon,
                               shape_.heads, 0.1f, cache_, mixed_.rows(0, rows), stream_);
  }
  void rotate(int rows) {
    rows_.count = rows;
    backend_.rope_and_append(rows_, qkv_.rows(0, rows), angles_.rows(0, rows), {}, {}, kEpsilon,
                             shape_.heads, cache_, stream_);
  }
  void mix(int rows) {
    rows_.count = rows;
    backend_.attention(rows_, qkv_.rows(0, rows), shape_.heads, 0.1f, cache_, mixed_.rows(0, rows),
                       stream_);
  }
  void head(int rows) {
    backend_.matmul(normed_.values.rows(0, rows), head_, Epilogue::kStore, logits_.rows(0, rows),
                    stream_);
  }
  /// A whole pass, or its products alone.
  void step(int rows, bool products_alone) {
    layers_step(rows, products_alone);
    if (!products_alone) norm(rows);
    head(rows);
  }
  /// The same without the head: what prefill runs.
  void layers_step(int rows, bool products_alone) {
    rows_.count = rows;
    if (!products_alone) {
      backend_.embed(rows_, head_, hidden_.rows(0, rows), stream_);
      backend_.rope_angles(rows_, inv_freq_, angles_.rows(0, rows), stream_);
      norm(rows);
    }
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      product(layer, 0, rows);
      if (!products_alone) attend(rows);
      for (const int part : {1, 2, 3}) product(layer, part, rows);
    }
  }

 private:
  static constexpr int kMostLogitsRows = 16, kPageTokens = 32;
  static constexpr float kEpsilon = 1e-5f;
  struct Layer {
    WeightView parts[4];
  };

  TensorView buffer(DType dtype, Shape shape) {
    const size_t bytes = static_cast<size_t>(shape.count()) * size_of(dtype);
    buffers_.emplace_back(backend_.memory(), bytes, "benchmark");
    backend_.fill_zero(buffers_.back().data(), bytes, stream_);
    return {buffers_.back().data(), dtype, shape, backend_.device()};
  }
  /// Numbers between 0.5 and 2, negative ones too in bfloat16.
  TensorView noise(DType dtype, Shape shape) {
    const TensorView view = buffer(dtype, shape);
    std::mt19937 generator(2);
    std::vector<uint32_t> bits(view.bytes() / sizeof(uint32_t));
    for (uint32_t& word : bits) {
      const auto random = static_cast<uint32_t>(generator());
      word = dtype == DType::kF32 ? (random & 0x00ffffffu) | 0x3f000000u
                                  : (random & 0x80ff80ffu) | 0x3f003f00u;
    }
    backend_.copy_to_device(view.data(), bits.data(), bits.size() * sizeof(uint32_t), stream_);
    stream_.synchronize();
    return view;
  }
  TensorView upload(const std::vector<int32_t>& values) {
    const TensorView view = buffer(DType::kI32, {static_cast<int64_t>(values.size())});
    backend_.copy_to_device(view.data(), values.data(), view.bytes(), stream_);
    return view;
  }
  WeightView weight(const std::vector<int64_t>& segments, int64_t cols) {
    WeightSpec spec{
        .cols = cols, .segments = {}, .paired = segments.size() == 2, .has_bias = false};
    std::vector<HostMatrix> host;
    for (const int64_t rows : segments) {
      spec.segments.push_back({rows, format_});
      const auto count = static_cast<size_t>(rows * cols);
      std::mt19937 generator(1);
      while (random_.size() < count) {  // magnitudes 2^-7 … 2^-4
        random_.push_back(static_cast<uint16_t>((generator() & 0x81ffu) | 0x3c00u));
      }
      host.push_back({random_.data(), DType::kBF16, rows, cols, cols});
    }
    const uint64_t bytes = packed_weight_bytes(backend_.device().kind, spec);
    buffers_.emplace_back(backend_.memory(), bytes, "benchmark");
    workspace_bytes_ =
        std::max(workspace_bytes_, matmul_workspace_bytes(backend_.device().kind, max_rows_, spec));
    weight_bytes_ += static_cast<double>(bytes);
    part_bytes_.push_back(static_cast<double>(bytes));
    return backend_.load_weight(spec, host, {}, buffers_.back().data(), stream_);
  }

  ModelShape shape_;
  WeightFormat format_;
  int max_rows_;
  Backend& backend_;
  Stream& stream_;
  uint64_t workspace_bytes_ = 0;
  std::vector<DeviceBuffer> buffers_;
  std::vector<uint16_t> random_;
  std::vector<Layer> layers_;
  std::vector<double> part_bytes_;  ///< the first layer's parts first
  WeightView head_;
  TensorView hidden_, qkv_, mixed_, gated_, angles_, inv_freq_, logits_, norm_;
  NormedRows normed_;
  Rows rows_;
  KvLayerView cache_;
  double weight_bytes_ = 0;
};

/// Median seconds of a replay of what `work` launches; several follow each other between two
/// events, as passes do in a model.
inline double graph_seconds(Backend& backend, Stream& stream, const std::function<void()>& work) {
  work();  // scratch memory grows here, not in the graph
  const auto graph = backend.capture(stream, work);
  const auto begin = backend.make_event(), end = backend.make_event();
  constexpr int kRepetitions = 7, kWarmUps = 1, kReplays = 4;
  std::vector<double> seconds;
  for (int i = 0; i < kWarmUps + kRepetitions; ++i) {
    stream.record(*begin);
    for (int replay = 0; replay < kReplays; ++replay) graph->launch(stream);
    stream.record(*end);
    end->wait();
    if (i >= kWarmUps) seconds.push_back(end->seconds_since(*begin) / kReplays);
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRepetitions / 2, seconds.end());
  return seconds[kRepetitions / 2];
}

class Report {
 public:
  Report(double bandwidth, const char* path)
      : bandwidth_(bandwidth), json_(path == nullptr ? nullptr : std::fopen(path, "w")) {}
  ~Report() {
    if (json_ != nullptr) std::fclose(json_);
  }
  Report(const Report&) = delete;
  Report& operator=(const Report&) = delete;

  /// An op that is bound by its bytes.
  void line(const std::string& name, int rows, double seconds, double bytes) {
    print(name, rows, seconds, bytes, "MB", bytes / seconds / bandwidth_);
  }
  /// An op that is bound by its operations, against a rate measured in the same run.
  void line_of_operations(const std::string& name, int rows, double seconds, double operations,
                          double rate) {
    print(name, rows, seconds, operations, "MFLOP", operations / seconds / rate);
  }

 private:
  void print(const std::string& name, int rows, double seconds, double work, const char* unit,
             double share) {
    std::printf("%-36s %4d rows %10.1f us %11.1f %-5s  %5.3f\n", name.c_str(), rows, seconds * 1e6,
                work * 1e-6, unit, share);
    std::fflush(stdout);
    if (json_ == nullptr) return;
    std::fprintf(json_,
                 "{\"name\": \"%s\", \"rows\": %d, \"seconds\": %.6g, \"%s\": %.0f, \"share\": "
                 "%.4f}\n",
                 name.c_str(), rows, seconds, unit[1] == 'B' ? "bytes" : "operations", work, share);
  }

  double bandwidth_;
  std::FILE* json_;
};

/// The sections. Ops of a pass of one to sixteen rows; wide passes; the round's own ops.
void measure_decode(const ModelShape& shape, WeightFormat format, Backend& backend, Report& report);
void measure_prefill(const ModelShape& shape, WeightFormat format, double matrix_rate,
                     Backend& backend, Report& report);
void measure_round(Backend& backend, Report& report);

}  // namespace tandem::bench
