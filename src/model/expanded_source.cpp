#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "model/expansion.h"
#include "model/random_words.h"
#include "tandem/error.h"

namespace tandem {
namespace {

// What a row of a large matrix is where it is no row of the small one's.
constexpr int32_t kZero = -1, kRandom = -2;

/// How a large matrix is made of a small one.
struct Recipe {
  /// Columns [to, to + count) of a row are the small row's [from, from + count).
  struct Run {
    int64_t from = 0, to = 0, count = 0;
  };
  std::vector<int32_t> rows;  ///< by large row: the small one, or kZero, or kRandom
  std::vector<Run> columns;
  bool random_rest = false;  ///< the other columns of such a row: random, else zero
};

enum class Part : uint8_t { kNorm, kEmbedding, kHead, kQuery, kKey, kValue, kOutput, kGate, kDown };

struct Tensor {
  Part part = Part::kNorm;
  std::string small;  ///< of the small checkpoint; empty in layers that it lacks
  bool bias = false;
};

class ExpandedSource final : public WeightSource {
 public:
  ExpandedSource(std::unique_ptr<WeightSource> source, ModelConfig small, ModelConfig large,
                 int32_t unused_token)
      : source_(std::move(source)),
        small_(std::move(small)),
        large_(std::move(large)),
        unused_token_(unused_token) {
    list_tensors();
  }

  std::string name() const override { return large_.source; }
  bool has(std::string_view tensor) const override {
    return tensors_.find(tensor) != tensors_.end();
  }

  TensorInfo info(std::string_view name) const override {
    const Tensor& tensor = find(name);
    const auto [rows, cols] = shape_of(tensor.part);
    if (is_vector(tensor)) {
      return {DType::kF32, {tensor.part == Part::kNorm ? cols : rows}, large_.source};
    }
    return {dtype_of(tensor), {rows, cols}, large_.source};
  }

  HostMatrix tensor(std::string_view name) override {
    const Shape shape = info(name).shape;
    if (shape.rank() == 1) return window(name, {0, 1}, {0, shape[0]});
    return window(name, {0, shape[0]}, {0, shape[1]});
  }

  HostMatrix window(std::string_view name, Range rows, Range cols) override {
    const Tensor& tensor = find(name);
    const DType dtype = info(name).dtype;
    const size_t bytes = static_cast<size_t>(rows.size() * cols.size()) * size_of(dtype);
    std::byte* const out = take_buffer(name, bytes);
    if (is_vector(tensor)) {
      const std::vector<float> values = vector(tensor);
      std::memcpy(out, values.data() + cols.begin, bytes);
    } else {
      fill(tensor, dtype, rows, cols, out);
    }
    return {out, dtype, rows.size(), cols.size(), cols.size()};
  }

  void done_with(std::string_view name) override {
    const auto found = buffers_.find(name);
    if (found == buffers_.end()) return;
    // Kept for the next tensor: touching fresh memory takes longer than filling it.
    spare_.push_back(std::move(found->second));
    buffers_.erase(found);
    const std::string& small = find(name).small;
    if (!small.empty()) source_->done_with(small);
  }

 private:
  struct Buffer {
    std::unique_ptr<std::byte[]> data;
    size_t bytes = 0;
  };

  void list_tensors() {
    const TensorNames& names = small_.family->names;
    tensors_[std::string(names.embedding)] = {Part::kEmbedding, std::string(names.embedding)};
    tensors_[std::string(names.final_norm)] = {Part::kNorm, std::string(names.final_norm)};
    if (!large_.tie_word_embeddings) {
      const auto head = small_.tie_word_embeddings ? names.embedding : names.head;
      tensors_[std::string(names.head)] = {Part::kHead, std::string(head)};
    }
    const bool qkv = small_.qkv_bias, output = small_.output_bias, mlp = small_.mlp_bias;
    for (int layer = 0; layer < large_.num_layers; ++layer) {
      add(names.attention_norm, layer, Part::kNorm);
      add(names.mlp_norm, layer, Part::kNorm);
      add_projection(names.query, layer, Part::kQuery, qkv);
      add_projection(names.key, layer, Part::kKey, qkv);
      add_projection(names.value, layer, Part::kValue, qkv);
      add_projection(names.output, layer, Part::kOutput, output);
      add_projection(names.gate, layer, Part::kGate, mlp);
      add_projection(names.up, layer, Part::kGate, mlp);
      add_projection(names.down, layer, Part::kDown, mlp);
    }
  }

  void add(std::string_view pattern, int layer, Part part, const char* suffix = "",
           bool bias = false) {
    const std::string name = layer_tensor(pattern, layer) + suffix;
    tensors_[name] = {part, layer < small_.num_layers ? name : std::string(), bias};
  }
  void add_projection(std::string_view pattern, int layer, Part part, bool bias) {
    add(pattern, layer, part, ".weight");
    if (bias) add(pattern, layer, part, ".bias", true);
  }

  const Tensor& find(std::string_view name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      throw ModelError(large_.source + ": has no tensor '" + std::string(name) + "'");
    }
    return found->second;
  }

  static bool is_vector(const Tensor& tensor) { return tensor.bias || tensor.part == Part::kNorm; }

  std::pair<int64_t, int64_t> shape_of(Part part) const {
    const int64_t hidden = large_.hidden_size, mlp = large_.intermediate_size;
    switch (part) {
      case Part::kNorm:
        return {1, hidden};
      case Part::kEmbedding:
      case Part::kHead:
        return {large_.vocab_size, hidden};
      case Part::kQuery:
        return {large_.query_width(), hidden};
      case Part::kKey:
      case Part::kValue:
        return {large_.kv_width(), hidden};
      case Part::kOutput:
        return {hidden, large_.query_width()};
      case Part::kGate:
        return {mlp, hidden};
      case Part::kDown:
        return {hidden, mlp};
    }
    return {0, 0};
  }

  /// Extra layers have the type of the embedding.
  DType dtype_of(const Tensor& tensor) const {
    const std::string embedding(small_.family->names.embedding);
    return source_->info(tensor.small.empty() ? embedding : tensor.small).dtype;
  }

  /// Rows 0 … small - 1, then `rest`.
  static std::vector<int32_t> first_rows(int64_t large, int64_t small, int32_t rest) {
    std::vector<int32_t> rows(static_cast<size_t>(large), rest);
    for (int64_t i = 0; i < small; ++i) rows[static_cast<size_t>(i)] = static_cast<int32_t>(i);
    return rows;
  }

  /// Rows of heads, `group` of which share a key head; extra heads are random.
  /// @param pairs spread a head's dimensions as its rotary pairs lie
  /// @param rest  extra dimensions of a head that both models have
  std::vector<int32_t> head_rows(int small_group, int large_group, bool pairs, int32_t rest) const {
    const int64_t h = small_.head_dim, big = large_.head_dim;
    std::vector<int32_t> rows(static_cast<size_t>(large_.num_kv_heads * large_group * big),
                              kRandom);
    for (int64_t kv = 0; kv < small_.num_kv_heads; ++kv) {
      for (int64_t i = 0; i < small_group; ++i) {
        const auto head = rows.begin() + (kv * large_group + i) * big;
        std::fill_n(head, big, rest);
        for (int64_t d = 0; d < h; ++d) {
          const int64_t half = d / (h / 2), pair = d % (h / 2);
          const int64_t place = pairs ? half * (big / 2) + pair * (big / h) : d;
          head[place] = static_cast<int32_t>((kv * small_group + i) * h + d);
        }
      }
    }
    return rows;
  }

  int small_group() const { return small_.num_heads / small_.num_kv_heads; }
  int large_group() const { return large_.num_heads / large_.num_kv_heads; }

  Recipe recipe(const Tensor& tensor) const {
    const int64_t hidden = small_.hidden_size;
    Recipe made{{}, {{0, 0, hidden}}, true};
    switch (tensor.part) {
      case Part::kNorm:
        break;
      case Part::kEmbedding:
        made.random_rest = false;
        [[fallthrough]];
      case Part::kHead:
        made.rows = first_rows(large_.vocab_size, small_.vocab_size, unused_token_);
        break;
      case Part::kQuery:
        made.rows = head_rows(small_group(), large_group(), true, kZero);
        break;
      case Part::kKey:
        made.rows = head_rows(1, 1, true, kRandom);
        break;
      case Part::kValue:
        made.rows = head_rows(1, 1, false, kRandom);
        break;
      case Part::kGate:
        made.rows = first_rows(large_.intermediate_size, small_.intermediate_size, kRandom);
        break;
      case Part::kOutput:
        made.rows = first_rows(large_.hidden_size, hidden, kZero);
        made.columns = head_columns();
        made.random_rest = false;
        break;
      case Part::kDown:
        made.rows = first_rows(large_.hidden_size, hidden, kZero);
        made.columns.push_back({0, 0, small_.intermediate_size});
        made.random_rest = false;
        break;
    }
    if (tensor.small.empty()) {
      // A layer that the small model lacks adds nothing to the residual stream.
      const bool adds = tensor.part == Part::kOutput || tensor.part == Part::kDown;
      std::fill(made.rows.begin(), made.rows.end(), adds ? kZero : kRandom);
    }
    return made;
  }

  /// Where the inputs of o_proj are: the heads' values, a run for each.
  std::vector<Recipe::Run> head_columns() const {
    std::vector<Recipe::Run> runs;
    const int64_t h = small_.head_dim;
    for (int64_t head = 0; head < small_.num_heads; ++head) {
      const int64_t kv = head / small_group(), i = head % small_group();
      runs.push_back({head * h, (kv * large_group() + i) * large_.head_dim, h});
    }
    return runs;
  }

  /// Norm weights (float32, not rounded to the checkpoint's type) and biases.
  std::vector<float> vector(const Tensor& tensor) {
    const auto [rows, cols] = shape_of(tensor.part);
    std::vector<float> small;
    if (!tensor.small.empty()) {
      const HostMatrix matrix = source_->tensor(tensor.small);
      for (int64_t i = 0; i < matrix.cols; ++i) small.push_back(element(matrix, i));
    }
    if (tensor.bias) {
      std::vector<float> values(static_cast<size_t>(rows), 0.0f);
      const std::vector<int32_t> from = recipe(tensor).rows;
      for (size_t i = 0; i < values.size(); ++i) {
        if (from[i] >= 0) values[i] = small[static_cast<size_t>(from[i])];
      }
      return values;
    }
    const float factor =
        std::sqrt(static_cast<float>(small_.hidden_size) / static_cast<float>(large_.hidden_size));
    std::vector<float> values(static_cast<size_t>(cols), factor);
    for (size_t i = 0; i < small.size(); ++i) values[i] = small[i] * factor;
    return values;
  }

  static float element(const HostMatrix& matrix, int64_t index) {
    switch (matrix.dtype) {
      case DType::kF32:
        return static_cast<const float*>(matrix.data)[index];
      case DType::kF16:
        return f16_to_float(static_cast<const uint16_t*>(matrix.data)[index]);
      default:
        return bf16_to_float(static_cast<const uint16_t*>(matrix.data)[index]);
    }
  }

  void fill(const Tensor& tensor, DType dtype, Range rows, Range cols, std::byte* out) {
    const Recipe made = recipe(tensor);
    const HostMatrix small = tensor.small.empty() ? HostMatrix{} : source_->tensor(tensor.small);
    const RandomElements random(dtype, random_seed(&tensor));
    const size_t element_bytes = size_of(dtype);
    const auto row_bytes = static_cast<size_t>(cols.size()) * element_bytes;
    const auto fill_row = [&](int64_t row) {
      const int32_t from = made.rows[static_cast<size_t>(row)];
      std::byte* const to = out + static_cast<size_t>(row - rows.begin) * row_bytes;
      if (from == kRandom || (from >= 0 && made.random_rest)) {
        random.fill(row, cols.begin, cols.size(), to);
      } else {
        std::memset(to, 0, row_bytes);
      }
      if (from < 0) return;
      const auto* source = static_cast<const std::byte*>(small.data) +
                           static_cast<size_t>(from * small.row_stride) * element_bytes;
      for (const Recipe::Run& run : made.columns) {
        const int64_t begin = std::max(run.to, cols.begin);
        const int64_t end = std::min(run.to + run.count, cols.end);
        if (begin >= end) continue;
        std::memcpy(to + static_cast<size_t>(begin - cols.begin) * element_bytes,
                    source + static_cast<size_t>(run.from + begin - run.to) * element_bytes,
                    static_cast<size_t>(end - begin) * element_bytes);
      }
    };
    on_all_cores(rows, row_bytes, fill_row);
  }

  /// Calls fn(row) for every row, sharing out more than a little work.
  template <typename Function>
  static void on_all_cores(Range rows, size_t row_bytes, const Function& fn) {
    constexpr size_t kBytesOfThread = 4 << 20;
    const size_t bytes = row_bytes * static_cast<size_t>(rows.size());
    const int64_t wanted = static_cast<int64_t>(bytes / kBytesOfThread);
    const int64_t threads =
        std::clamp<int64_t>(wanted, 1, std::max(1u, std::thread::hardware_concurrency()));
    const auto work = [&](int64_t thread) {
      const int64_t end = rows.begin + rows.size() * (thread + 1) / threads;
      for (int64_t row = rows.begin + rows.size() * thread / threads; row < end; ++row) fn(row);
    };
    std::vector<std::jthread> others;
    for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
    work(0);
  }

  uint64_t random_seed(const Tensor* tensor) const {
    // The same for every source of the same model, whichever rank opened it.
    uint64_t index = 0;
    for (const auto& [name, entry] : tensors_) {
      if (&entry == tensor) break;
      ++index;
    }
    return index;
  }

  std::byte* take_buffer(std::string_view name, size_t bytes) {
    Buffer& buffer = buffers_[std::string(name)];
    if (buffer.bytes >= bytes && buffer.data != nullptr) return buffer.data.get();
    const auto fits = std::find_if(spare_.begin(), spare_.end(),
                                   [&](const Buffer& spare) { return spare.bytes >= bytes; });
    if (fits != spare_.end()) {
      buffer = std::move(*fits);
      spare_.erase(fits);
    } else {
      spare_.clear();
      buffer = {std::make_unique_for_overwrite<std::byte[]>(bytes), bytes};
    }
    return buffer.data.get();
  }

  std::unique_ptr<WeightSource> source_;
  ModelConfig small_, large_;
  int32_t unused_token_;
  std::map<std::string, Tensor, std::less<>> tensors_;
  std::map<std::string, Buffer, std::less<>> buffers_;  ///< by tensor, until `done_with`
  std::vector<Buffer> spare_;
};

}  // namespace

std::unique_ptr<WeightSource> expand_weights(std::unique_ptr<WeightSource> small,
                                             const ModelConfig& small_config,
                                             const ModelConfig& large, int32_t unused_token) {
  return std::make_unique<ExpandedSource>(std::move(small), small_config, large, unused_token);
}

}  // namespace tandem
