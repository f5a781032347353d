#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/model_config.h"
#include "model/shard.h"

namespace tandem {

/// What every rank of a model holds, by rank. All sharding is decided in this file.
struct Placement {
  Split split = Split::kNone;
  std::vector<ModelShard> shards;

  int ranks() const { return static_cast<int>(shards.size()); }
  /// The rank where logits appear, beside which the round's buffers and, where it fits there
  /// and nothing else is asked for, the draft live.
  int leader() const { return shards.front().leader(); }
};

/// Why the model cannot be split this way over so many ranks; none when it can.
std::optional<std::string> tensor_split_obstacle(const ModelConfig& config, int ranks);
std::optional<std::string> layer_split_obstacle(const ModelConfig& config, int ranks);

/// The whole model on one device.
Placement whole_placement(const ModelConfig& config);

/// Shares out heads, MLP columns and vocabulary rows. Ranks get whole kv heads with their query
/// heads where there are enough; with fewer kv heads than ranks, neighbouring ranks hold copies of
/// one and share its query heads. Shares differ by one unit at most (one kv head; `kColumnUnit`
/// columns); vocabulary rows are `ModelShard::vocab_share`s.
/// @throws ConfigError with `tensor_split_obstacle`'s reason
Placement tensor_placement(const ModelConfig& config, int ranks);

/// Gives every rank a run of layers: `runs` are consecutive, not empty, and cover the model. The
/// first rank has the embedding, the last one final norm and head.
Placement layer_placement(const ModelConfig& config, std::span<const Range> runs);

/// MLP columns are shared out in multiples of this where there are enough, so that kernels see
/// whole tiles (an int4 group of inputs, a panel of outputs).
inline constexpr int64_t kColumnUnit = 128;

/// [0, total) cut into `parts` ranges, none empty, whose sizes differ by one unit at most; units of
/// `unit` where that leaves every part one, single elements otherwise. Needs parts <= total.
std::vector<Range> share_evenly(int64_t total, int parts, int64_t unit);

/// True when consecutive runs of layers, one for each room and none empty, fit: run i takes
/// rooms[i] bytes at most.
bool layers_fit(std::span<const uint64_t> layer_bytes, std::span<const int64_t> rooms);

/// Cuts the layers into consecutive runs, one for each room and none empty, so that the least that
/// any room has left is as large as possible (below zero when the layers do not fit), and what is
/// left is as even as that allows.
/// @param rooms bytes that each device has for layers; at most as many as layers
std::vector<Range> balance_layers(std::span<const uint64_t> layer_bytes,
                                  std::span<const int64_t> rooms);

}  // namespace tandem
