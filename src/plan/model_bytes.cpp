#include "plan/model_bytes.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace tandem {
namespace {

uint64_t growing_bytes(const PlannedModel& model, const ModelShard& shard, DeviceKind kind,
                       int main_positions) {
  const ModelLimits limits = model.limits(main_positions);
  uint64_t bytes = kv_bytes(model.config, shard, limits, kind) +
                   activation_bytes(model.config, shard, model.formats, limits, kind) +
                   logits_bytes(model.config, shard, limits);
  if (shard.is_leader()) bytes += model.round_state_bytes(main_positions);
  return bytes;
}

}  // namespace

ModelLimits PlannedModel::limits(int main_positions) const {
  return {.max_positions = std::min(main_positions, config.max_position_embeddings),
          .max_rows = max_rows,
          .max_logits_rows = max_logits_rows};
}

uint64_t PlannedModel::pass_bytes(const Placement& placement, DeviceKind kind) const {
  uint64_t sum = 0;
  uint64_t largest = 0;
  for (ModelShard shard : placement.shards) {
    shard.has_embedding = false;
    const uint64_t bytes = weights_bytes(config, shard, formats, kind);
    sum += bytes;
    largest = std::max(largest, bytes);
  }
  return placement.split == Split::kTensor ? largest : sum;
}

std::vector<MemoryRow> rank_rows(const PlannedModel& model, const ModelShard& shard,
                                 const Overheads& overheads, DeviceKind kind, int main_positions,
                                 bool apart) {
  const ModelLimits limits = model.limits(main_positions);
  std::vector<MemoryRow> rows;
  const auto add = [&](MemoryPurpose purpose, uint64_t bytes) {
    if (bytes > 0) rows.push_back({model.role, purpose, bytes});
  };
  add(MemoryPurpose::kWeights, weights_bytes(model.config, shard, model.formats, kind));
  add(MemoryPurpose::kKvCache, kv_bytes(model.config, shard, limits, kind));
  add(MemoryPurpose::kActivations,
      activation_bytes(model.config, shard, model.formats, limits, kind));
  add(MemoryPurpose::kLogits, logits_bytes(model.config, shard, limits));
  uint64_t round = shard.is_leader() ? model.round_state_bytes(main_positions) : 0;
  if (apart && model.round_copy_bytes) round += model.round_copy_bytes(main_positions);
  add(MemoryPurpose::kRoundState, round);
  add(MemoryPurpose::kWorkspaces, overheads.workspaces_bytes);
  add(MemoryPurpose::kCommunicator, overheads.communicator_bytes);
  add(MemoryPurpose::kGraphs, overheads.graphs_bytes);
  return rows;
}

RankBytes::RankBytes(const PlannedModel& model, ModelShard shard, DeviceKind kind)
    : model_(&model),
      shard_(std::move(shard)),
      kind_(kind),
      weights_bytes_(weights_bytes(model.config, shard_, model.formats, kind)) {}

uint64_t RankBytes::at(int main_positions) const {
  return weights_bytes_ + growing_bytes(*model_, shard_, kind_, main_positions);
}

ModelShard LayerSplitBytes::probe(Range layers, int rank, int ranks) const {
  ModelShard shard = ModelShard::whole(model_->config);
  shard.split = Split::kLayer;
  shard.rank = rank;
  shard.world_size = ranks;
  shard.layers = layers;
  shard.has_embedding = rank == 0;
  shard.has_head = rank == ranks - 1;
  return shard;
}

LayerSplitBytes::LayerSplitBytes(const PlannedModel& model, DeviceKind kind)
    : model_(&model), kind_(kind) {
  // A middle rank of three has neither embedding nor head.
  constexpr int kRanks = 3;
  const auto weights = [&](Range layers, int rank) {
    return weights_bytes(model.config, probe(layers, rank, kRanks), model.formats, kind);
  };
  const uint64_t first = weights({0, 1}, 1);
  fixed_weights_ = first + weights({1, 2}, 1) - weights({0, 2}, 1);
  embedding_weights_ = weights({0, 1}, 0) - first;
  head_weights_ = weights({0, 1}, kRanks - 1) - first;
  for (int64_t layer = 0; layer < model.config.num_layers; ++layer) {
    layer_weights_.push_back(weights({layer, layer + 1}, 1) - fixed_weights_);
  }
}

uint64_t LayerSplitBytes::one_layer_kv(int main_positions) const {
  const ModelLimits limits = model_->limits(main_positions);
  return kv_bytes(model_->config, probe({0, 2}, 1, 2), limits, kind_) -
         kv_bytes(model_->config, probe({0, 1}, 1, 2), limits, kind_);
}

uint64_t LayerSplitBytes::base(int rank, int ranks, int main_positions) const {
  uint64_t bytes = fixed_weights_ +
                   growing_bytes(*model_, probe({0, 1}, rank, ranks), kind_, main_positions) -
                   one_layer_kv(main_positions);
  if (rank == 0) bytes += embedding_weights_;
  if (rank == ranks - 1) bytes += head_weights_;
  return bytes;
}

std::vector<uint64_t> LayerSplitBytes::layers(int main_positions) const {
  const uint64_t kv = one_layer_kv(main_positions);
  std::vector<uint64_t> bytes = layer_weights_;
  for (uint64_t& layer : bytes) layer += kv;
  return bytes;
}

}  // namespace tandem
