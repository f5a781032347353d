#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// What memory on a device is for.
enum class MemoryPurpose : uint8_t {
  kWeights,       ///< after sharding, quantisation and padding
  kKvCache,       ///< pages for the whole context
  kActivations,   ///< work buffers of the largest row bucket
  kLogits,        ///< logits of the rows whose logits are wanted
  kRoundState,    ///< tokens and probabilities of a round
  kWorkspaces,    ///< of libraries
  kCommunicator,  ///< buffers that devices exchange data through
  kGraphs,        ///< captured work
  kContext,       ///< what a device's driver takes for this process after the plan was made
  kInUse,         ///< taken before the plan was made, by others or by this process's context
  kBeyondLimit,   ///< free, but the configured limit forbids it
};

/// "weights", "kv_cache", "activations", "logits", "round_state", "workspaces", "communicator",
/// "graphs", "context", "in_use", "beyond_limit".
std::string_view name_of(MemoryPurpose purpose);

/// Bytes of one purpose on one device. `model` is "draft" or "main", "device" for what belongs to
/// neither, "other" for what is not tandem's.
struct MemoryRow {
  std::string model;
  MemoryPurpose purpose = MemoryPurpose::kWeights;
  uint64_t bytes = 0;
  bool operator==(const MemoryRow&) const = default;
};

/// One device. In a plan that fits, capacity = reserve + the rows + free, exactly.
struct DevicePlan {
  std::string name;
  uint64_t capacity_bytes = 0;
  uint64_t reserve_bytes = 0;   ///< left alone, as configured; at most what others have left
  uint64_t free_bytes = 0;      ///< what the plan leaves besides the reserve
  std::vector<MemoryRow> rows;  ///< draft first; no empty rows

  /// Bytes of one model ("" for all of tandem's own) on this device.
  uint64_t bytes_of(std::string_view model) const;
  bool operator==(const DevicePlan&) const = default;
};

/// Where a model's layers are. `layers[i]` is the first and the last layer that `devices[i]` holds.
struct ModelPlacement {
  struct Run {
    int first = 0;
    int last = 0;  ///< inclusive
    bool operator==(const Run&) const = default;
  };
  std::string model;  ///< "draft", "main"
  std::string split;  ///< "layer" (a single device is one run) or "tensor" (every device holds a
                      ///< share of every layer)
  std::vector<std::string> devices;
  std::vector<Run> layers;
  bool operator==(const ModelPlacement&) const = default;
};

/// Why a plan does not fit.
struct MemoryShortfall {
  std::string device;     ///< where most is missing
  uint64_t bytes = 0;     ///< how much
  int max_model_len = 0;  ///< the largest context that would fit; 0: none would
  std::string message;    ///< one line for people
  bool operator==(const MemoryShortfall&) const = default;
};

/// What goes where, and how many bytes it takes: decided before anything is allocated.
struct MemoryPlan {
  bool fits = false;
  std::vector<DevicePlan> devices;
  int max_model_len = 0;
  std::vector<ModelPlacement> placement;
  std::optional<MemoryShortfall> shortfall;  ///< exactly when it does not fit

  /// One object: fits, devices, max_model_len, placement, shortfall (null when it fits).
  std::string to_json() const;
  /// What `to_json` wrote. @throws ConfigError that names the key
  static MemoryPlan from_json(std::string_view text);

  const DevicePlan* device(std::string_view name) const;  ///< null when the plan has no such device
  bool operator==(const MemoryPlan&) const = default;
};

/// One row of a plan beside what was really allocated for it.
struct MemoryUse {
  std::string device;
  std::string model;
  MemoryPurpose purpose = MemoryPurpose::kWeights;
  uint64_t planned_bytes = 0;
  uint64_t actual_bytes = 0;
};

}  // namespace tandem
