#include <string>
#include <vector>

#include "model/model_weights.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// A size and where config.json says it.
struct Dimension {
  std::string meaning;  ///< "vocab_size"
  int64_t size = 0;
};

class Checker {
 public:
  Checker(const ModelConfig& config, const WeightSource& source)
      : config_(config), source_(source) {}

  void require(const std::string& tensor, const std::vector<Dimension>& expected) const {
    const TensorInfo info = source_.info(tensor);
    const std::string shape =
        info.file + ": tensor '" + tensor + "' has shape " + info.shape.to_string() + ", ";
    if (info.shape.rank() != static_cast<int>(expected.size())) {
      throw ModelError(shape + "but " + (expected.size() == 1 ? "a vector" : "a matrix") +
                       " is expected there");
    }
    for (size_t axis = 0; axis < expected.size(); ++axis) {
      if (info.shape[static_cast<int>(axis)] == expected[axis].size) continue;
      throw ModelError(shape + "config.json says " + expected[axis].meaning + " " +
                       std::to_string(expected[axis].size));
    }
  }

  void refuse(const std::string& tensor, const std::string& says) const {
    if (!source_.has(tensor)) return;
    throw ModelError(source_.name() + ": the checkpoint has a tensor '" + tensor +
                     "', but config.json says " + says);
  }

  /// A projection (rows, cols) and its bias, which must be there exactly when the config says so.
  void projection(std::string_view pattern, int layer, const Dimension& rows, const Dimension& cols,
                  bool bias, const char* bias_key) const {
    const std::string name = layer_tensor(pattern, layer);
    require(name + ".weight", {rows, cols});
    if (bias) {
      require(name + ".bias", {rows});
    } else {
      refuse(name + ".bias", std::string("no ") + bias_key);
    }
  }

  void layer(int index) const {
    const TensorNames& names = config_.family->names;
    const Dimension hidden = {"hidden_size", config_.hidden_size};
    const Dimension mlp = {"intermediate_size", config_.intermediate_size};
    const Dimension queries = {"num_attention_heads * head_dim", config_.query_width()};
    const Dimension keys = {"num_key_value_heads * head_dim", config_.kv_width()};
    const Dimension head = {"head_dim", config_.head_dim};
    require(layer_tensor(names.attention_norm, index), {hidden});
    require(layer_tensor(names.mlp_norm, index), {hidden});
    if (config_.qk_norm) {
      require(layer_tensor(names.query_norm, index), {head});
      require(layer_tensor(names.key_norm, index), {head});
    } else {
      refuse(layer_tensor(names.query_norm, index), "a family without q and k norms");
    }
    projection(names.query, index, queries, hidden, config_.qkv_bias, "attention_bias");
    projection(names.key, index, keys, hidden, config_.qkv_bias, "attention_bias");
    projection(names.value, index, keys, hidden, config_.qkv_bias, "attention_bias");
    projection(names.output, index, hidden, queries, config_.output_bias, "attention_bias");
    projection(names.gate, index, mlp, hidden, config_.mlp_bias, "mlp_bias");
    projection(names.up, index, mlp, hidden, config_.mlp_bias, "mlp_bias");
    projection(names.down, index, hidden, mlp, config_.mlp_bias, "mlp_bias");
  }

 private:
  const ModelConfig& config_;
  const WeightSource& source_;
};

}  // namespace

void check_weights(const ModelConfig& config, const ModelShard& shard, const WeightSource& source) {
  const TensorNames& names = config.family->names;
  const Checker check(config, source);
  const Dimension hidden = {"hidden_size", config.hidden_size};
  const Dimension vocab = {"vocab_size", config.vocab_size};
  for (auto layer = static_cast<int>(shard.layers.begin); layer < shard.layers.end; ++layer)
    check.layer(layer);
  check.refuse(layer_tensor(names.attention_norm, config.num_layers),
               "num_hidden_layers " + std::to_string(config.num_layers));
  check.require(std::string(names.embedding), {vocab, hidden});
  if (!shard.has_head) return;
  check.require(std::string(names.final_norm), {hidden});
  if (config.tie_word_embeddings) return;
  if (!source.has(names.head)) {
    throw ModelError(source.name() + ": the checkpoint has no tensor '" + std::string(names.head) +
                     "', but config.json says tie_word_embeddings false");
  }
  check.require(std::string(names.head), {vocab, hidden});
}

}  // namespace tandem
