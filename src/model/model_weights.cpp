#include "model/model_weights.h"

#include <algorithm>
#include <string>

#include "model/rope.h"

namespace tandem {
namespace {

/// One checkpoint matrix, and the window of it that a rank holds.
struct Part {
  std::string tensor;  ///< without ".weight"; the bias is beside it
  Range rows;
  Range cols;
};

/// A weight on the device: the parts it is fused from.
struct Fused {
  std::vector<Part> parts;
  bool paired = false;
  bool has_bias = false;
};

Range scaled(const Range& range, int64_t factor) {
  return {range.begin * factor, range.end * factor};
}

/// The fused weights of one layer, in the order in which they lie in the arena.
struct LayerParts {
  Fused qkv, output, gate_up, down;

  LayerParts(const ModelConfig& config, const ModelShard& shard, int layer) {
    const TensorNames& names = config.family->names;
    const Range hidden = {0, config.hidden_size};
    const Range queries = scaled(shard.heads, config.head_dim);
    const Range keys = scaled(shard.kv_heads, config.head_dim);
    // With a tensor split the partial sums of all ranks are added; only one of them may contain the
    // bias.
    const bool adds_bias = shard.split != Split::kTensor || shard.rank == 0;
    qkv = {{{layer_tensor(names.query, layer), queries, hidden},
            {layer_tensor(names.key, layer), keys, hidden},
            {layer_tensor(names.value, layer), keys, hidden}},
           false,
           config.qkv_bias};
    output = {{{layer_tensor(names.output, layer), hidden, queries}},
              false,
              config.output_bias && adds_bias};
    gate_up = {{{layer_tensor(names.gate, layer), shard.mlp, hidden},
                {layer_tensor(names.up, layer), shard.mlp, hidden}},
               true,
               config.mlp_bias};
    down = {{{layer_tensor(names.down, layer), hidden, shard.mlp}},
            false,
            config.mlp_bias && adds_bias};
  }
};

/// The embedding and the head are named with their ".weight".
Fused vocabulary_matrix(std::string_view tensor, const ModelConfig& config,
                        const ModelShard& shard) {
  constexpr std::string_view kWeight = ".weight";
  std::string name(tensor.substr(0, tensor.size() - kWeight.size()));
  return {{{std::move(name), shard.vocab, {0, config.hidden_size}}}, false, false};
}

bool needs_embedding(const ModelConfig& config, const ModelShard& shard) {
  return shard.has_embedding || (shard.has_head && config.tie_word_embeddings);
}

bool needs_separate_head(const ModelConfig& config, const ModelShard& shard) {
  return shard.has_head && !config.tie_word_embeddings;
}

WeightSpec spec_of(const Fused& fused, const FormatOf& formats) {
  WeightSpec spec;
  spec.cols = fused.parts.front().cols.size();
  spec.paired = fused.paired;
  spec.has_bias = fused.has_bias;
  for (const Part& part : fused.parts)
    spec.segments.push_back({part.rows.size(), formats(part.tensor + ".weight")});
  return spec;
}

WeightFormat format_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return WeightFormat::kF32;
    case DType::kF16:
      return WeightFormat::kF16;
    default:
      return WeightFormat::kBF16;
  }
}

float element(const HostMatrix& matrix, int64_t index) {
  switch (matrix.dtype) {
    case DType::kF32:
      return static_cast<const float*>(matrix.data)[index];
    case DType::kF16:
      return f16_to_float(static_cast<const uint16_t*>(matrix.data)[index]);
    default:
      return bf16_to_float(static_cast<const uint16_t*>(matrix.data)[index]);
  }
}

/// Whether another rank's layers follow on this one's.
bool hands_on(const ModelShard& shard) { return shard.split == Split::kLayer && !shard.has_head; }

/// Carries what every load needs; lives for one `load_weights`.
class Loader {
 public:
  Loader(const FormatOf& formats, WeightSource& source, Backend& backend, Arena& arena,
         const LoadProgress& progress, Stream& stream)
      : formats_(formats),
        source_(source),
        backend_(backend),
        arena_(arena),
        progress_(progress),
        stream_(stream) {}

  WeightView matrix(const Fused& fused) {
    const WeightSpec spec = spec_of(fused, formats_);
    std::vector<HostMatrix> segments;
    std::vector<float> bias;
    for (const Part& part : fused.parts) {
      segments.push_back(source_.window(part.tensor + ".weight", part.rows, part.cols));
      if (fused.has_bias) append(part.tensor + ".bias", part.rows, bias);
    }
    void* const destination = arena_.take_bytes(packed_weight_bytes(backend_.device().kind, spec));
    const WeightView view = backend_.load_weight(spec, segments, bias, destination, stream_);
    stream_.synchronize();  // the copy reads host memory that is given back now
    for (const Part& part : fused.parts) source_.done_with(part.tensor + ".weight");
    report();
    return view;
  }

  TensorView vector(std::string_view name, int64_t size) {
    std::vector<float> values;
    append(std::string(name), {0, size}, values);
    return floats(values);
  }

  TensorView floats(const std::vector<float>& values) {
    const TensorView view = arena_.take(DType::kF32, {static_cast<int64_t>(values.size())});
    backend_.copy_to_device(view.data(), values.data(), view.bytes(), stream_);
    stream_.synchronize();
    report();
    return view;
  }

 private:
  void append(const std::string& name, const Range& range, std::vector<float>& values) {
    const HostMatrix vector = source_.tensor(name);
    for (int64_t i = range.begin; i < range.end; ++i) values.push_back(element(vector, i));
    source_.done_with(name);
  }

  void report() const {
    if (progress_) progress_(arena_.used_bytes(), arena_.bytes());
  }

  const FormatOf& formats_;
  WeightSource& source_;
  Backend& backend_;
  Arena& arena_;
  const LoadProgress& progress_;
  Stream& stream_;
};

}  // namespace

FormatOf formats_as_stored(const WeightSource& source) {
  return [&source](std::string_view tensor) { return format_of(source.info(tensor).dtype); };
}

FormatOf formats_all(WeightFormat format) {
  return [format](std::string_view) { return format; };
}

uint64_t weights_bytes(const ModelConfig& config, const ModelShard& shard, const FormatOf& formats,
                       DeviceKind kind) {
  ArenaSize total;
  const auto add = [&](const Fused& fused) {
    total.add_bytes(packed_weight_bytes(kind, spec_of(fused, formats)));
  };
  for (auto layer = static_cast<int>(shard.layers.begin); layer < shard.layers.end; ++layer) {
    const LayerParts parts(config, shard, layer);
    total.add(DType::kF32, {config.hidden_size}).add(DType::kF32, {config.hidden_size});
    if (config.qk_norm)
      total.add(DType::kF32, {config.head_dim}).add(DType::kF32, {config.head_dim});
    add(parts.qkv);
    add(parts.output);
    add(parts.gate_up);
    add(parts.down);
  }
  const TensorNames& names = config.family->names;
  if (needs_embedding(config, shard)) add(vocabulary_matrix(names.embedding, config, shard));
  if (needs_separate_head(config, shard)) add(vocabulary_matrix(names.head, config, shard));
  if (shard.has_head || hands_on(shard)) total.add(DType::kF32, {config.hidden_size});
  return total.add(DType::kF32, {config.head_dim / 2}).bytes();
}

uint64_t workspace_bytes(const ModelConfig& config, const ModelShard& shard,
                         const FormatOf& formats, int max_rows, int logits_rows, DeviceKind kind) {
  if (kind == DeviceKind::kCpu) return 0;
  uint64_t most = 0;
  const auto take = [&](const Fused& fused, int rows) {
    most = std::max(most, matmul_workspace_bytes(kind, rows, spec_of(fused, formats)));
  };
  const LayerParts parts(config, shard, 0);
  for (const Fused* fused : {&parts.qkv, &parts.output, &parts.gate_up, &parts.down}) {
    take(*fused, max_rows);
  }
  if (shard.has_head) {
    const TensorNames& names = config.family->names;
    const std::string_view head = config.tie_word_embeddings ? names.embedding : names.head;
    take(vocabulary_matrix(head, config, shard), logits_rows);
  }
  return most;
}

ModelWeights load_weights(const ModelConfig& config, const ModelShard& shard,
                          const FormatOf& formats, WeightSource& source, Backend& backend,
                          Arena& arena, const LoadProgress& progress, Stream& stream) {
  const TensorNames& names = config.family->names;
  Loader load(formats, source, backend, arena, progress, stream);
  ModelWeights weights;
  for (auto layer = static_cast<int>(shard.layers.begin); layer < shard.layers.end; ++layer) {
    const LayerParts parts(config, shard, layer);
    LayerWeights w;
    w.index = layer;
    w.attention_norm = load.vector(layer_tensor(names.attention_norm, layer), config.hidden_size);
    w.mlp_norm = load.vector(layer_tensor(names.mlp_norm, layer), config.hidden_size);
    if (config.qk_norm) {
      w.q_norm = load.vector(layer_tensor(names.query_norm, layer), config.head_dim);
      w.k_norm = load.vector(layer_tensor(names.key_norm, layer), config.head_dim);
    }
    w.qkv = load.matrix(parts.qkv);
    w.output = load.matrix(parts.output);
    w.gate_up = load.matrix(parts.gate_up);
    w.down = load.matrix(parts.down);
    weights.layers.push_back(w);
  }
  if (needs_embedding(config, shard)) {
    weights.embedding = load.matrix(vocabulary_matrix(names.embedding, config, shard));
    weights.embedding.first_row = shard.vocab.begin;
  }
  if (needs_separate_head(config, shard)) {
    weights.head = load.matrix(vocabulary_matrix(names.head, config, shard));
  } else if (shard.has_head) {
    weights.head = weights.embedding;
  }
  if (shard.has_head) weights.final_norm = load.vector(names.final_norm, config.hidden_size);
  if (hands_on(shard)) {
    const auto next = static_cast<int>(shard.layers.end);
    weights.next_norm = load.vector(layer_tensor(names.attention_norm, next), config.hidden_size);
  }
  weights.inv_freq = load.floats(rope_frequencies(config.rope, config.head_dim));
  return weights;
}

}  // namespace tandem
