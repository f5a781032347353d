#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "core/memory.h"
#include "model/shard.h"
#include "model/weight_source.h"

namespace tandem {

/// How a tensor of the checkpoint is to be stored on the device.
using FormatOf = std::function<WeightFormat(std::string_view tensor)>;

/// Every tensor as the checkpoint stores it. The source must outlive the function.
FormatOf formats_as_stored(const WeightSource& source);
/// Every tensor in one format, for plans without a checkpoint.
FormatOf formats_all(WeightFormat format);

/// Called while weights are loaded, after each one: bytes on the device so far, and in all.
using LoadProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

/// The weights of one layer on a device, projections fused as the ops want them.
struct LayerWeights {
  int index = 0;              ///< in the model
  TensorView attention_norm;  ///< (hidden) f32
  TensorView mlp_norm;        ///< (hidden) f32
  TensorView q_norm;          ///< (head_dim) f32; empty without q/k norm
  TensorView k_norm;
  WeightView qkv;      ///< q, k, v
  WeightView output;   ///< o_proj
  WeightView gate_up;  ///< paired
  WeightView down;
};

/// What one rank holds of a model's weights; views into an arena.
struct ModelWeights {
  std::vector<LayerWeights> layers;
  WeightView embedding;   ///< empty on ranks that need none
  WeightView head;        ///< the embedding itself where the two are tied
  TensorView final_norm;  ///< (hidden) f32
  TensorView next_norm;   ///< (hidden) f32, layer split: the next rank's first norm
  TensorView inv_freq;    ///< (head_dim / 2) f32, rotary frequencies
};

/// Bytes of the arena that `load_weights` fills, byte for byte.
uint64_t weights_bytes(const ModelConfig& config, const ModelShard& shard, const FormatOf& formats,
                       DeviceKind kind);

/// Bytes that the products of a pass of `max_rows` rows, `logits_rows` of them with logits, work in
/// (`Backend::lend_workspace`). Formats are taken to be the same in every layer.
uint64_t workspace_bytes(const ModelConfig& config, const ModelShard& shard,
                         const FormatOf& formats, int max_rows, int logits_rows, DeviceKind kind);

/// Compares the checkpoint's headers with the config: every tensor the shard needs must be there in
/// the right shape, and there must be none that the config denies (a bias, one more layer).
/// @throws ModelError naming file, tensor, shape, and the config's key and value
void check_weights(const ModelConfig& config, const ModelShard& shard, const WeightSource& source);

/// Loads a shard tensor by tensor, giving each one's host memory back before the next: at no time
/// is more than one fused weight in host memory twice.
/// @param arena with `weights_bytes` bytes left
ModelWeights load_weights(const ModelConfig& config, const ModelShard& shard,
                          const FormatOf& formats, WeightSource& source, Backend& backend,
                          Arena& arena, const LoadProgress& progress, Stream& stream);

}  // namespace tandem
