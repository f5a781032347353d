#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "model/model_config.h"
#include "model/weight_source.h"

namespace tandem {

/// The sizes of a model, without its weights.
struct ModelShape {
  std::string_view name;
  int num_layers = 0;
  int hidden_size = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int intermediate_size = 0;
  int vocab_size = 0;
  bool tie_word_embeddings = false;
};

/// The shapes that a configuration can name: 1B (Llama 3.2), 8B and 70B (Llama 3.1).
std::span<const ModelShape> model_shapes();

/// The config of a model of the large shape that computes what the small one computes: its
/// residual stream holds the small one's and zeros, so that the mean square of its norms is
/// hidden_size / shape.hidden_size of the small one's, and so must rms_norm_eps be; scores keep the
/// small model's scale, whatever the head size.
/// @throws ModelError naming what cannot be expanded: a size beyond the shape's, a head size that
/// does not divide the shape's, norms over heads
ModelConfig expanded_config(const ModelConfig& small, const ModelShape& shape);

/// The weights of such a model, computed tensor by tensor from the small one's when they are asked
/// for. What adds nothing to the function is random and small beside what does, so that the values
/// of a quantised row or group keep their scale; only what must be zero is zero: embedding columns
/// and outputs of extra residual dimensions, what extra heads, MLP units and layers would add, and
/// the queries of extra dimensions within a head. Rotary pair i of a head lies at i * H / h of its
/// half, where its frequency is. Extra vocabulary repeats the row of `unused_token`.
/// Windows of a tensor hold the same elements as the whole. Fills on all cores.
/// @param small  the checkpoint, and its config
/// @param large  what `expanded_config` made of it
std::unique_ptr<WeightSource> expand_weights(std::unique_ptr<WeightSource> small,
                                             const ModelConfig& small_config,
                                             const ModelConfig& large, int32_t unused_token);

/// The id of a token that valid text never holds: byte 0xFF alone, as tokenizer.json of the folder
/// writes it. @throws ModelError when there is none
int32_t never_used_token(const std::filesystem::path& folder);

}  // namespace tandem
