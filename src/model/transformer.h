#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "comm/communicator.h"
#include "core/memory.h"
#include "model/kv_cache.h"
#include "model/language_model.h"
#include "model/model_config.h"
#include "model/model_memory.h"
#include "model/shard.h"
#include "model/weight_source.h"

namespace tandem {

/// Called while weights are loaded, after each tensor: bytes on the device so far, and in all.
using LoadProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

/// The decoder-only transformer of every family (Vaswani et al. 2017; RMS norm, rotary positions, gated MLP, grouped
/// queries), or the part of it that one rank holds. The only forward there is.
///
/// Owns four arenas on the device (weights, cache, activations, logits) whose sizes model_memory.h computes.
/// With Split::kTensor every rank of the communicator calls `forward` with equal rows, and rank 0 gets the logits. With
/// Split::kLayer the hidden state comes from rank - 1 and goes to rank + 1, and the rank with the head gets the logits.
/// Other ranks get an empty view.
class Transformer final : public LanguageModel {
 public:
  struct Options {
    ModelLimits limits;
    std::string role = "model";  ///< "main", "draft": names the arenas in messages and ledgers
    FormatOf formats;            ///< empty: as stored
    LoadProgress progress;       ///< may be empty
  };

  /// Checks every tensor against the config before anything is allocated, then loads tensor by tensor.
  /// @param source       needed during construction only
  /// @param communicator of the ranks that share the model; null with Split::kNone. Must outlive the model, as `backend`
  /// @throws ModelError for tensors that are missing or contradict config.json; MemoryError; UsageError for limits beyond
  ///         the model's
  Transformer(const ModelConfig& config, const ModelShard& shard, WeightSource& source, Backend& backend,
              const Options& options, Communicator* communicator = nullptr);

  Backend& backend() override { return backend_; }
  int vocab_size() const override { return config_.vocab_size; }
  int max_positions() const override { return limits_.max_positions; }
  int max_rows() const override { return limits_.max_rows; }
  int max_logits_rows() const { return limits_.logits_rows(); }

  void reserve(int sequence, int tokens, Stream& stream) override;
  void truncate(int sequence, int tokens, Stream& stream) override;
  void fork(int from, int to, int tokens, Stream& stream) override;

  /// @throws ShapeError when rows exceed max_rows, or the rows with logits max_logits_rows
  TensorView forward(const Rows& rows, int first_logits_row, Stream& stream) override;

  const ModelConfig& config() const { return config_; }
  const ModelShard& shard() const { return shard_; }
  const KvCache& cache() const { return *cache_; }
  uint64_t weights_bytes() const { return weights_.bytes(); }      ///< of the arena
  uint64_t kv_bytes() const { return kv_.bytes(); }                ///< of the arena
  uint64_t activation_bytes() const { return activations_.bytes(); }  ///< of the arena
  uint64_t logits_bytes() const { return logits_.bytes(); }        ///< of the arena

 private:
  struct Layer {
    int index = 0;  ///< in the model
    TensorView attention_norm;
    TensorView mlp_norm;
    TensorView q_norm;  ///< empty without q/k norm
    TensorView k_norm;
    WeightView qkv;
    WeightView output;
    WeightView gate_up;
    WeightView down;
  };

  /// The work buffers of a pass, cut to its rows.
  struct Buffers {
    TensorView hidden;     ///< (rows, hidden) f32, the residual stream
    TensorView normed;     ///< (rows, hidden)
    TensorView qkv;        ///< (rows, (heads + 2 kv_heads) * head_dim)
    TensorView mixed;      ///< (rows, heads * head_dim)
    TensorView gated;      ///< (rows, mlp)
    TensorView projected;  ///< (rows, hidden) f32, tensor split only: what is summed over the ranks
    TensorView angles;     ///< (rows, head_dim) f32
    Buffers first(int rows) const;
  };

  void load(WeightSource& source, const FormatOf& formats, const LoadProgress& progress, Stream& stream);
  void allocate_buffers();
  void run_layer(const Layer& layer, const Rows& rows, const Buffers& b, Stream& stream);
  void project(TensorView x, const WeightView& weight, const Buffers& b, Stream& stream);
  TensorView run_head(const Buffers& b, int first_row, int rows, Stream& stream);

  ModelConfig config_;
  ModelShard shard_;
  Backend& backend_;
  Communicator* communicator_;
  ModelLimits limits_;
  Arena weights_;
  Arena kv_;
  Arena activations_;
  Arena logits_;
  std::unique_ptr<KvCache> cache_;
  std::vector<Layer> layers_;
  WeightView embedding_;
  WeightView head_;
  TensorView final_norm_;
  TensorView inv_freq_;  ///< (head_dim / 2) f32
  Buffers buffers_;
  TensorView shard_logits_;     ///< (logits_rows, vocabulary rows of this rank) f32
  TensorView gathered_logits_;  ///< (ranks, logits_rows, most vocabulary rows of a rank), tensor split only
  TensorView full_logits_;      ///< (logits_rows, vocab) f32
};

}  // namespace tandem
