#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/device.h"
#include "plan/model_bytes.h"
#include "plan/overhead_history.h"
#include "plan/placement.h"
#include "tandem/plan.h"

namespace tandem {

/// A device as a plan sees it.
struct PlanDevice {
  DeviceId id;
  std::string hardware;  ///< what its measured overheads are filed under
  uint64_t capacity_bytes = 0;
  uint64_t free_bytes = 0;              ///< what others have left; at most the capacity
  uint64_t reserve_bytes = 0;           ///< of the free bytes, left alone
  std::optional<uint64_t> limit_bytes;  ///< tandem takes at most this much
  std::string pool;                     ///< see DeviceMemory::pool
  bool has_context = false;             ///< see DeviceInfo::has_context
  std::string label;                    ///< what plans call it; empty: its id

  std::string name() const { return label.empty() ? to_string(id) : label; }
};

enum class SplitChoice : uint8_t { kAuto, kLayer, kTensor };

/// What is to be placed, and where it may go.
struct PlanRequest {
  PlannedModel main;
  std::optional<PlannedModel> draft;
  std::vector<PlanDevice> devices;   ///< no name twice; all of one kind
  std::vector<size_t> main_devices;  ///< indices into `devices`, in rank order; at least one
  bool choose_devices =
      false;  ///< the main model takes the fewest of these; otherwise it takes all
  std::optional<size_t> draft_device;  ///< index; none: see `make_plan`
  std::optional<int> most_ranks;       ///< of the main model where devices are chosen; none: any
  SplitChoice split = SplitChoice::kAuto;
  std::optional<int> max_model_len;  ///< none: the largest context that fits
  std::optional<int> auto_limit;     ///< of a context chosen by "auto", besides the model's own

  /// The context that is wanted: as asked, or the most that "auto" may take.
  int wanted_context() const;
};

/// One model as it was placed.
struct PlacedModel {
  Placement placement;
  std::vector<size_t> devices;  ///< by rank: indices into PlanRequest::devices
  ModelLimits limits;
};

/// What `make_plan` decided. Placed even where it does not fit, so that people see what is short.
struct Plan {
  MemoryPlan memory;
  PlacedModel main;
  std::optional<PlacedModel> draft;
  std::string draft_place;  ///< why the draft is where it is, in a line for people
  uint64_t main_pass_bytes = 0;
  uint64_t draft_pass_bytes = 0;

  /// Index of the device where logits appear.
  size_t leader_device() const {
    return main.devices[static_cast<size_t>(main.placement.leader())];
  }
  /// Whether the draft is on another device than that.
  bool draft_is_apart() const { return draft && draft->devices.front() != leader_device(); }
  /// The draft's cost per pass over the main model's, where both are bound by memory bandwidth; 0
  /// without a draft.
  double cost_ratio() const;
};

/// A context chosen by "auto" has this many positions at least, unless the model has fewer.
inline constexpr int kSmallestAutoContext = 256;
/// `auto_limit` on the host's memory, which other programs need as well and of which a model's
/// whole context would often take nearly all.
inline constexpr int kHostAutoContext = 8192;

/// Places the draft, then the main model in what remains, by arithmetic alone.
///
/// Of devices to choose from, the fewest are taken that hold the wanted context ("auto": the
/// model's own limit), those with most room first; if no number of them does, "auto" takes the
/// number with the largest context. A tensor split is preferred to a layer split where both fit.
/// A draft without a device of its own takes the place where a round costs least of those where it
/// fits: see draft_place.h.
/// More memory on any device never makes a plan that fits unfit.
/// @throws ConfigError when the request contradicts itself or the models: a context beyond the main
/// model's, a split that
///         is impossible over the devices it must use, no device; ModelError when the devices
///         cannot run a model
Plan make_plan(const PlanRequest& request, const OverheadHistory& history);

}  // namespace tandem
