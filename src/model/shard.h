#pragma once

#include <cstdint>

#include "model/model_config.h"

namespace tandem {

/// [begin, end)
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

/// How the ranks of a model share its work.
enum class Split : uint8_t {
  kNone,    ///< one rank
  kTensor,  ///< heads, MLP columns and vocabulary rows are shared out; all ranks run every layer
            ///< together
  kLayer,   ///< each rank runs a run of layers and hands the hidden state on
};

/// What one rank holds of a model. Decided by plan/Placement; Transformer and the memory formulas
/// only obey.
struct ModelShard {
  int rank = 0;  ///< in the model's communicator
  int world_size = 1;
  Split split = Split::kNone;
  Range layers;
  bool has_embedding = true;
  bool has_head = true;  ///< final norm and head
  Range heads;           ///< query heads
  Range kv_heads;        ///< with fewer kv heads than ranks, neighbouring ranks hold the same one
  Range mlp;             ///< columns of gate and up, inputs of down
  Range vocab;  ///< rows of embedding and head; with Split::kTensor `vocab_share(vocab_size, rank,
                ///< world_size)`

  /// The whole model on one device.
  static ModelShard whole(const ModelConfig& config);
  /// The vocabulary rows of a rank: shares of ceil(vocab / size), the last ones smaller.
  static Range vocab_share(int64_t vocab_size, int rank, int world_size);

  /// The rank that is given the rows of a pass and gets its logits: 0, and with Split::kLayer the
  /// last one.
  int leader() const { return split == Split::kLayer ? world_size - 1 : 0; }
  bool is_leader() const { return rank == leader(); }

  /// @throws ShapeError when a range is empty or outside the model, or query heads do not meet
  /// their kv heads
  void validate(const ModelConfig& config) const;

  bool operator==(const ModelShard&) const = default;
};

}  // namespace tandem
