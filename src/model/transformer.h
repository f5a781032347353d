#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/pass_link.h"
#include "comm/communicator.h"
#include "core/memory.h"
#include "model/kv_cache.h"
#include "model/language_model.h"
#include "model/model_config.h"
#include "model/model_memory.h"
#include "model/model_weights.h"
#include "model/rank_sum.h"
#include "model/shard.h"
#include "model/weight_source.h"

namespace tandem {

/// The decoder-only transformer of every family (Vaswani et al. 2017; RMS norm, rotary positions,
/// gated MLP, grouped queries), or the part of it that one rank holds. The only forward there is.
///
/// Owns four arenas on the device (weights, cache, activations, logits) whose sizes model_memory.h
/// computes. Ranks that share a model all call `forward`: the leader (ModelShard::leader) with the
/// rows and gets the logits; the others with the count alone, receive the rows from the leader and
/// get an empty view. With Split::kTensor partial sums are added up twice a layer; with
/// Split::kLayer the hidden state comes from rank - 1 and goes to rank + 1.
class Transformer final : public LanguageModel {
 public:
  struct Options {
    ModelLimits limits;
    std::string role = "model";  ///< "main", "draft": names the arenas in messages and ledgers
    FormatOf formats;            ///< empty: as stored
    LoadProgress progress;       ///< may be empty
  };

  /// Checks every tensor against the config before anything is allocated, then loads tensor by
  /// tensor.
  /// @param source       needed during construction only
  /// @param communicator of the ranks that share the model; null with Split::kNone. Must outlive
  /// the model, as `backend`
  /// @throws ModelError for tensors that are missing or contradict config.json; MemoryError;
  /// UsageError for limits beyond
  ///         the model's
  Transformer(const ModelConfig& config, const ModelShard& shard, WeightSource& source,
              Backend& backend, const Options& options, Communicator* communicator = nullptr);

  Backend& backend() override { return backend_; }
  int vocab_size() const override { return config_.vocab_size; }
  int max_positions() const override { return limits_.max_positions; }
  int max_rows() const override { return limits_.max_rows; }
  int max_logits_rows() const override { return limits_.logits_rows(); }

  void reserve(int sequence, int tokens, Stream& stream) override;
  void truncate(int sequence, int tokens, Stream& stream) override;
  void fork(int from, int to, int tokens, Stream& stream) override;

  /// @throws ShapeError when rows exceed max_rows, or the rows with logits max_logits_rows
  TensorView forward(const Rows& rows, int first_logits_row, Stream& stream) override;
  /// A tensor split's ranks bring their shares' largest together instead of the logits; `ids` is
  /// the leader's, null elsewhere.
  void forward_argmax(const Rows& rows, int first_row, int32_t* ids, Stream& stream) override;
  /// What `forward` checks first.
  void check_pass(int rows, int first_logits_row) const;

  /// How this rank's sums are done; null unless the split is a tensor split.
  RankSum* rank_sum() { return rank_sum_ ? &*rank_sum_ : nullptr; }
  /// This rank's place in a link, and from here on the one that narrow passes of a layer split go
  /// through; null: the communicator alone.
  LinkMember link_member() { return {&backend_, peer_memory_}; }
  void use(PassLink* link) { link_ = link; }
  /// As RankSum::measure, in the model's own buffers, between passes.
  double measure_rank_sum(Stream& stream);

  /// What every rank of a split holds alike after a pass, in its first rows; for checks. The
  /// residual stream (max_rows, hidden) f32 (of a tensor split), and what the leader broadcast.
  const TensorView& hidden() const { return buffers_.hidden; }
  const TensorView& shared_rows() const { return shared_rows_; }

  const ModelConfig& config() const { return config_; }
  const ModelShard& shard() const { return shard_; }
  const ModelLimits& limits() const { return limits_; }
  const KvCache& cache() const { return *cache_; }
  // Bytes that lie in each arena: what was put there, whatever size was asked for.
  uint64_t weights_bytes() const { return weights_arena_.used_bytes(); }
  uint64_t kv_bytes() const { return kv_arena_.used_bytes(); }
  uint64_t activation_bytes() const { return activations_arena_.used_bytes(); }
  uint64_t logits_bytes() const { return logits_arena_.used_bytes(); }

 private:
  static constexpr int64_t kLinkedRows = RankSum::kGatheredRows;

  /// The work buffers of a pass, cut to its rows.
  struct Buffers {
    TensorView hidden;     ///< (rows, hidden) f32, the residual stream
    NormedRows normed;     ///< (rows, hidden); tensor split: squares of the rows of a round at most
    TensorView qkv;        ///< (rows, (heads + 2 kv_heads) * head_dim)
    TensorView mixed;      ///< (rows, heads * head_dim)
    TensorView gated;      ///< (rows, mlp)
    TensorView projected;  ///< (rows, hidden) f32, tensor split only: what is summed over the ranks
    TensorView angles;     ///< (rows, head_dim) f32
    Buffers first(int rows) const;
  };

  void allocate_buffers();
  Rows share_rows(const Rows& rows, Stream& stream);
  /// Everything in front of the head; what remains is in b.hidden.
  Buffers run_body(const Rows& given, Stream& stream);
  void embed(const Rows& rows, const Buffers& b, Stream& stream);
  void run_layers(const Rows& rows, const Buffers& b, Stream& stream);
  /// `normed` is the norm of the hidden states; `next_norm` the weight of the norm behind the
  /// layer, which is left in b.normed, or empty.
  void run_layer(const LayerWeights& w, const NormedRows& normed, const TensorView& next_norm,
                 const Rows& rows, const Buffers& b, Stream& stream);
  void add_projection(TensorView x, const WeightView& weight, const TensorView& next_norm,
                      const Buffers& b, Stream& stream);
  /// Gives the next rank of a layer split what its layers begin with.
  void hand_on(const Buffers& b, Stream& stream);
  /// Whether a pass of so many rows goes through the link.
  bool is_linked(int64_t rows) const { return link_ != nullptr && rows <= kLinkedRows; }
  /// This rank's logits of the rows from `first_row` on.
  TensorView run_head(const Buffers& b, int first_row, Stream& stream);
  /// Every rank's logits of so many rows side by side, on the leader; empty elsewhere.
  TensorView gather_logits(int64_t count, Stream& stream);

  ModelConfig config_;
  ModelShard shard_;
  Backend& backend_;
  Communicator* communicator_;
  ModelLimits limits_;
  Arena weights_arena_;
  Arena kv_arena_;
  Arena activations_arena_;
  Arena logits_arena_;
  std::unique_ptr<KvCache> cache_;
  ModelWeights weights_;
  Buffers buffers_;
  std::optional<RankSum> rank_sum_;  ///< tensor split only
  TensorView peer_memory_;           ///< RankSum's, or the link's
  PassLink* link_ = nullptr;         ///< layer split only
  TensorView workspace_;             ///< what wide products work in
  TensorView shared_rows_;   ///< (4 * max_rows) i32: what the leader broadcasts; several ranks only
  TensorView shard_logits_;  ///< every rank's `logits_place` f32, tensor split only
  TensorView logits_;        ///< (logits_rows, vocab) f32, on the leader
  TensorView choices_;       ///< (logits_rows, 2) i32, for `forward_argmax` of a tensor split
  TensorView gathered_choices_;  ///< (ranks * logits_rows, 2) i32, likewise
};

}  // namespace tandem
