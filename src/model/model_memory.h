#pragma once

#include <cstdint>

#include "backend/pass_link.h"
#include "model/kv_cache.h"
#include "model/model_weights.h"
#include "model/shard.h"

namespace tandem {

/// What a model is prepared for. Planned memory follows from these numbers alone.
struct ModelLimits {
  int max_positions = 0;    ///< context; at most config.max_position_embeddings
  int max_rows = 0;         ///< rows of one pass (a prefill chunk)
  int max_logits_rows = 0;  ///< rows of one pass whose logits are wanted; 0: max_rows
  int max_sequences = 1;
  int pages = 0;  ///< of the cache; 0: every sequence can be as long as max_positions

  int logits_rows() const { return max_logits_rows > 0 ? max_logits_rows : max_rows; }
  KvCacheSize kv_size() const;
};

/// Element types of activations and of the cache on a kind of device (CUDA: two bytes, bf16 or
/// f16).
DType activation_dtype(DeviceKind kind);
DType kv_dtype(DeviceKind kind);

/// Columns of the row descriptors that a leader broadcasts: tokens, positions, slots, sequences.
inline constexpr int kRowFields = 4;

/// Shapes of a Transformer's work buffers; those that a shard does not need have no elements.
struct BufferShapes {
  Shape hidden, normed, squares, qkv, mixed, gated, angles, projected,
      shared_rows;    ///< activations
  Shape gathered;     ///< activations too: what RankSum works with
  Shape peer_memory;  ///< and what RankSum or PassLink does between GPUs
  Shape logits;
  Shape shard_logits;               ///< every rank's share of them, at `logits_place`s
  Shape choices, gathered_choices;  ///< what stands for them where only the largest is wanted
};
BufferShapes buffer_shapes(const ModelConfig& config, const ModelShard& shard,
                           const ModelLimits& limits, DeviceKind kind);

/// Elements from one rank's share of so many rows' logits to the next one's: room for the largest
/// share, and aligned.
int64_t logits_place(const ModelConfig& config, int ranks, int64_t rows);

/// The largest messages of a layer split that go through a PassLink.
LinkWords link_words(const ModelConfig& config, const ModelLimits& limits, DeviceKind kind);

/// What the ops of a pass work in (`Backend::lend_workspace`), one after the other.
uint64_t pass_workspace_bytes(const ModelConfig& config, const ModelShard& shard,
                              const FormatOf& formats, const ModelLimits& limits, DeviceKind kind);

/// @throws ModelError where no device of the kind can run the model: on CUDA, a head size without a
///         kernel
void check_runs_on(const ModelConfig& config, DeviceKind kind);

/// Bytes of a Transformer's arenas besides the weights (`weights_bytes` in model_weights.h). What
/// these functions say is what is allocated, byte for byte.
uint64_t kv_bytes(const ModelConfig& config, const ModelShard& shard, const ModelLimits& limits,
                  DeviceKind kind);
/// The work buffers of a pass, and what its ops work in.
uint64_t activation_bytes(const ModelConfig& config, const ModelShard& shard,
                          const FormatOf& formats, const ModelLimits& limits, DeviceKind kind);
uint64_t logits_bytes(const ModelConfig& config, const ModelShard& shard,
                      const ModelLimits& limits);

}  // namespace tandem
