#include "model/shard.h"

#include <algorithm>
#include <string>

#include "tandem/error.h"

namespace tandem {
namespace {

void check_range(const char* what, const Range& range, int64_t limit) {
  if (range.begin < 0 || range.size() < 1 || range.end > limit) {
    throw ShapeError(std::string("model shard: ") + what + " [" + std::to_string(range.begin) +
                     ", " + std::to_string(range.end) + ") is empty or outside [0, " +
                     std::to_string(limit) + ")");
  }
}

}  // namespace

ModelShard ModelShard::whole(const ModelConfig& config) {
  ModelShard shard;
  shard.layers = {0, config.num_layers};
  shard.heads = {0, config.num_heads};
  shard.kv_heads = {0, config.num_kv_heads};
  shard.mlp = {0, config.intermediate_size};
  shard.vocab = {0, config.vocab_size};
  return shard;
}

Range ModelShard::vocab_share(int64_t vocab_size, int rank, int world_size) {
  const int64_t share = (vocab_size + world_size - 1) / world_size;
  return {std::min(rank * share, vocab_size), std::min((rank + 1) * share, vocab_size)};
}

void ModelShard::validate(const ModelConfig& config) const {
  if (world_size < 1 || rank < 0 || rank >= world_size ||
      (split == Split::kNone) != (world_size == 1)) {
    throw ShapeError("model shard: rank " + std::to_string(rank) + " of " +
                     std::to_string(world_size) + " does not fit its split");
  }
  check_range("layers", layers, config.num_layers);
  check_range("query heads", heads, config.num_heads);
  check_range("kv heads", kv_heads, config.num_kv_heads);
  check_range("MLP columns", mlp, config.intermediate_size);
  check_range("vocabulary", vocab, config.vocab_size);
  if (split == Split::kTensor && vocab != vocab_share(config.vocab_size, rank, world_size)) {
    throw ShapeError("model shard: the vocabulary rows of rank " + std::to_string(rank) +
                     " are not its share");
  }
  // Attention maps local query head h to local kv head h / (heads / kv_heads); that must be the
  // model's own mapping.
  const int64_t group = config.num_heads / config.num_kv_heads;
  const int64_t local_group = heads.size() / kv_heads.size();
  for (int64_t head = heads.begin; head < heads.end; ++head) {
    if (local_group == 0 || kv_heads.begin + (head - heads.begin) / local_group != head / group) {
      throw ShapeError("model shard: query head " + std::to_string(head) + " of rank " +
                       std::to_string(rank) + " does not meet its kv head");
    }
  }
}

}  // namespace tandem
