#include "plan/placement.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "tandem/error.h"

namespace tandem {
namespace {

ModelShard base_shard(const ModelConfig& config, Split split, int rank, int ranks) {
  ModelShard shard = ModelShard::whole(config);
  shard.split = split;
  shard.rank = rank;
  shard.world_size = ranks;
  return shard;
}

/// Whole kv heads for every rank; their query heads come along.
void share_kv_heads(const ModelConfig& config, std::vector<ModelShard>& shards) {
  const int64_t group = config.num_heads / config.num_kv_heads;
  const std::vector<Range> shares =
      share_evenly(config.num_kv_heads, static_cast<int>(shards.size()), 1);
  for (size_t rank = 0; rank < shards.size(); ++rank) {
    shards[rank].kv_heads = shares[rank];
    shards[rank].heads = {shares[rank].begin * group, shares[rank].end * group};
  }
}

/// One kv head for every rank, held by several; these share its query heads.
void replicate_kv_heads(const ModelConfig& config, std::vector<ModelShard>& shards) {
  const int64_t group = config.num_heads / config.num_kv_heads;
  const std::vector<Range> holders =
      share_evenly(static_cast<int64_t>(shards.size()), config.num_kv_heads, 1);
  for (int64_t kv_head = 0; kv_head < config.num_kv_heads; ++kv_head) {
    const Range ranks = holders[static_cast<size_t>(kv_head)];
    const std::vector<Range> queries = share_evenly(group, static_cast<int>(ranks.size()), 1);
    for (int64_t i = 0; i < ranks.size(); ++i) {
      ModelShard& shard = shards[static_cast<size_t>(ranks.begin + i)];
      const Range share = queries[static_cast<size_t>(i)];
      shard.kv_heads = {kv_head, kv_head + 1};
      shard.heads = {kv_head * group + share.begin, kv_head * group + share.end};
    }
  }
}

/// Whether consecutive runs fit that leave every room `spare` bytes. Filling each room as far as it
/// goes would not do: layers may differ, and a room must not be left with one that is too large for
/// it.
bool fits_with_spare(std::span<const uint64_t> layer_bytes, std::span<const int64_t> rooms,
                     int64_t spare) {
  const size_t layers = layer_bytes.size();
  std::vector<bool> reached(layers + 1,
                            false);  // [n]: the rooms so far can hold the first n layers
  reached[0] = true;
  for (const int64_t room : rooms) {
    std::vector<bool> next(layers + 1, false);
    for (size_t begin = 0; begin < layers; ++begin) {
      if (!reached[begin]) continue;
      int64_t left = room - spare;
      for (size_t end = begin + 1; end <= layers; ++end) {
        left -= static_cast<int64_t>(layer_bytes[end - 1]);
        if (left < 0) break;
        next[end] = true;
      }
    }
    reached = std::move(next);
  }
  return reached[layers];
}

/// The largest `spare` for which the layers fit.
int64_t largest_spare(std::span<const uint64_t> layer_bytes, std::span<const int64_t> rooms) {
  int64_t total = 0;
  for (const uint64_t bytes : layer_bytes) total += static_cast<int64_t>(bytes);
  // With this little to spare, every room takes all the layers; with more than the largest room,
  // none takes any.
  int64_t low = *std::min_element(rooms.begin(), rooms.end()) - total;
  int64_t high = *std::max_element(rooms.begin(), rooms.end()) + 1;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits_with_spare(layer_bytes, rooms, middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace

std::vector<Range> share_evenly(int64_t total, int parts, int64_t unit) {
  int64_t units = (total + unit - 1) / unit;
  if (units < parts) {
    unit = 1;
    units = total;
  }
  std::vector<Range> shares;
  int64_t begin = 0;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t end = begin + units / parts + (part < units % parts ? 1 : 0);
    shares.push_back({begin * unit, std::min(end * unit, total)});
    begin = end;
  }
  return shares;
}

std::optional<std::string> tensor_split_obstacle(const ModelConfig& config, int ranks) {
  const auto too_many = [&](int64_t count, const char* what) {
    return config.source + ": a tensor split over " + std::to_string(ranks) +
           " devices needs at least as many " + what + ", the model has " + std::to_string(count);
  };
  if (config.num_heads < ranks) return too_many(config.num_heads, "query heads");
  if (config.intermediate_size < ranks) return too_many(config.intermediate_size, "MLP columns");
  if (ModelShard::vocab_share(config.vocab_size, ranks - 1, ranks).size() < 1) {
    return config.source + ": a tensor split over " + std::to_string(ranks) +
           " devices leaves none of the " + std::to_string(config.vocab_size) +
           " vocabulary entries for the last one";
  }
  return std::nullopt;
}

std::optional<std::string> layer_split_obstacle(const ModelConfig& config, int ranks) {
  if (config.num_layers >= ranks) return std::nullopt;
  return config.source + ": a layer split over " + std::to_string(ranks) +
         " devices needs at least as many layers, the model has " +
         std::to_string(config.num_layers);
}

Placement whole_placement(const ModelConfig& config) {
  return {Split::kNone, {ModelShard::whole(config)}};
}

Placement tensor_placement(const ModelConfig& config, int ranks) {
  if (const auto obstacle = tensor_split_obstacle(config, ranks)) throw ConfigError(*obstacle);
  Placement placement{Split::kTensor, {}};
  for (int rank = 0; rank < ranks; ++rank) {
    placement.shards.push_back(base_shard(config, Split::kTensor, rank, ranks));
  }
  if (config.num_kv_heads >= ranks) {
    share_kv_heads(config, placement.shards);
  } else {
    replicate_kv_heads(config, placement.shards);
  }
  const std::vector<Range> mlp = share_evenly(config.intermediate_size, ranks, kColumnUnit);
  for (ModelShard& shard : placement.shards) {
    shard.mlp = mlp[static_cast<size_t>(shard.rank)];
    shard.vocab = ModelShard::vocab_share(config.vocab_size, shard.rank, ranks);
    shard.validate(config);
  }
  return placement;
}

Placement layer_placement(const ModelConfig& config, std::span<const Range> runs) {
  Placement placement{Split::kLayer, {}};
  const int ranks = static_cast<int>(runs.size());
  for (int rank = 0; rank < ranks; ++rank) {
    ModelShard shard = base_shard(config, Split::kLayer, rank, ranks);
    shard.layers = runs[static_cast<size_t>(rank)];
    shard.has_embedding = rank == 0;
    shard.has_head = rank == ranks - 1;
    shard.validate(config);
    placement.shards.push_back(shard);
  }
  return placement;
}

bool layers_fit(std::span<const uint64_t> layer_bytes, std::span<const int64_t> rooms) {
  return fits_with_spare(layer_bytes, rooms, 0);
}

std::vector<Range> balance_layers(std::span<const uint64_t> layer_bytes,
                                  std::span<const int64_t> rooms) {
  const size_t layers = layer_bytes.size();
  const int64_t spare = largest_spare(layer_bytes, rooms);
  std::vector<int64_t> prefix(layers + 1, 0);
  for (size_t i = 0; i < layers; ++i)
    prefix[i + 1] = prefix[i] + static_cast<int64_t>(layer_bytes[i]);

  // cost[n]: the least sum of squares of what the rooms so far have left, when they hold the first
  // n layers and each keeps `spare`. Squares make the sum smallest where the shares are even.
  constexpr double kImpossible = std::numeric_limits<double>::infinity();
  std::vector<double> cost(layers + 1, kImpossible);
  cost[0] = 0;
  std::vector<std::vector<size_t>> begin_of(rooms.size(), std::vector<size_t>(layers + 1, 0));
  for (size_t room = 0; room < rooms.size(); ++room) {
    std::vector<double> next(layers + 1, kImpossible);
    for (size_t end = 1; end <= layers; ++end) {
      for (size_t begin = end; begin-- > 0;) {
        const int64_t left = rooms[room] - (prefix[end] - prefix[begin]);
        if (left < spare) break;
        const double total = cost[begin] + static_cast<double>(left) * static_cast<double>(left);
        if (total < next[end]) {
          next[end] = total;
          begin_of[room][end] = begin;
        }
      }
    }
    cost = std::move(next);
  }

  std::vector<Range> runs(rooms.size());
  size_t end = layers;
  for (size_t room = rooms.size(); room-- > 0;) {
    const size_t begin = begin_of[room][end];
    runs[room] = {static_cast<int64_t>(begin), static_cast<int64_t>(end)};
    end = begin;
  }
  return runs;
}

}  // namespace tandem
