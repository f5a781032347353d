#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "backend/weight_view.h"
#include "model/kv_cache.h"
#include "model/shard.h"
#include "model/weight_source.h"

namespace tandem {

/// What a model is prepared for. Planned memory follows from these numbers alone.
struct ModelLimits {
  int max_positions = 0;    ///< context; at most config.max_position_embeddings
  int max_rows = 0;         ///< rows of one pass (a prefill chunk)
  int max_logits_rows = 0;  ///< rows of one pass whose logits are wanted; 0: max_rows
  int max_sequences = 1;
  int pages = 0;            ///< of the cache; 0: every sequence can be as long as max_positions

  int logits_rows() const { return max_logits_rows > 0 ? max_logits_rows : max_rows; }
  KvCacheSize kv_size() const;
};

/// How a tensor of the checkpoint is to be stored on the device.
using FormatOf = std::function<WeightFormat(std::string_view tensor)>;

/// Every tensor as the checkpoint stores it.
FormatOf formats_as_stored(const WeightSource& source);
/// Every tensor in one format, for plans without a checkpoint.
FormatOf formats_all(WeightFormat format);

/// Element types of activations and of the cache on a kind of device (CUDA: two bytes, bf16 or f16).
DType activation_dtype(DeviceKind kind);
DType kv_dtype(DeviceKind kind);

/// The fused weights of a layer as a rank holds them.
struct LayerSpecs {
  WeightSpec qkv;      ///< q, k, v
  WeightSpec output;   ///< o_proj
  WeightSpec gate_up;  ///< paired
  WeightSpec down;
};
LayerSpecs layer_specs(const ModelConfig& config, const ModelShard& shard, const FormatOf& formats, int layer);
/// The embedding table, or the head (with tied embeddings both are the same weight).
WeightSpec embedding_spec(const ModelConfig& config, const ModelShard& shard, const FormatOf& formats);
WeightSpec head_spec(const ModelConfig& config, const ModelShard& shard, const FormatOf& formats);

/// Bytes of the four arenas of a Transformer. What these functions say is what is allocated, byte for byte.
uint64_t weights_bytes(const ModelConfig& config, const ModelShard& shard, const FormatOf& formats, DeviceKind kind);
uint64_t kv_bytes(const ModelConfig& config, const ModelShard& shard, const ModelLimits& limits, DeviceKind kind);
uint64_t activation_bytes(const ModelConfig& config, const ModelShard& shard, const ModelLimits& limits,
                          DeviceKind kind);
uint64_t logits_bytes(const ModelConfig& config, const ModelShard& shard, const ModelLimits& limits);

}  // namespace tandem
