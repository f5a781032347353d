#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/device.h"
#include "model/model_memory.h"
#include "model/model_weights.h"
#include "plan/overheads.h"
#include "plan/placement.h"
#include "tandem/plan.h"

namespace tandem {

/// A model to be planned for.
struct PlannedModel {
  std::string role;  ///< "main", "draft"
  ModelConfig config;
  FormatOf formats;
  int max_rows = 0;         ///< the largest row bucket of a pass
  int max_logits_rows = 0;  ///< rows of a pass whose logits are wanted
  /// Bytes of the round's buffers (of the drafter's, for a draft) beside the leader, for a main
  /// model of so many positions. Never less for more positions.
  std::function<uint64_t(int main_positions)> round_state_bytes;
  /// What that takes more where a draft is not on the leader's device: its copy of the round.
  /// Empty: nothing. Never less for more positions.
  std::function<uint64_t(int main_positions)> round_copy_bytes;

  ModelLimits limits(int main_positions) const;
  /// The bytes a pass reads from memory on its slowest path: every rank's share in turn with a
  /// layer split, the largest share with a tensor split. The embedding table, of which a pass reads
  /// single rows, does not count.
  uint64_t pass_bytes(const Placement& placement, DeviceKind kind) const;
};

/// Bytes of one rank of one model on its device, by purpose; no empty rows.
/// @param apart a draft that is not on the leader's device
std::vector<MemoryRow> rank_rows(const PlannedModel& model, const ModelShard& shard,
                                 const Overheads& overheads, DeviceKind kind, int main_positions,
                                 bool apart = false);

/// The same in one number and without overheads, for a search over contexts: weights are computed
/// once.
class RankBytes {
 public:
  RankBytes(const PlannedModel& model, ModelShard shard, DeviceKind kind);
  uint64_t at(int main_positions) const;

 private:
  const PlannedModel* model_;
  ModelShard shard_;
  DeviceKind kind_;
  uint64_t weights_bytes_ = 0;
};

/// What the ranks of a layer split need, taken apart: what each rank needs whatever layers it
/// holds, and each layer. Only for models of two layers or more over two ranks or more.
class LayerSplitBytes {
 public:
  LayerSplitBytes(const PlannedModel& model, DeviceKind kind);
  /// Everything of rank `rank` of `ranks` but its layers and overheads.
  uint64_t base(int rank, int ranks, int main_positions) const;
  /// Weights and cache of each layer.
  std::vector<uint64_t> layers(int main_positions) const;

 private:
  uint64_t one_layer_kv(int main_positions) const;
  ModelShard probe(Range layers, int rank, int ranks) const;

  const PlannedModel* model_;
  DeviceKind kind_;
  std::vector<uint64_t> layer_weights_;
  uint64_t fixed_weights_ = 0;      ///< of any rank
  uint64_t embedding_weights_ = 0;  ///< the first rank's besides
  uint64_t head_weights_ = 0;       ///< the last rank's besides
};

}  // namespace tandem
