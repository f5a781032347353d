#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "plan/planner.h"

namespace tandem {

/// One way to place both models, and how well it fits.
struct PlanAttempt {
  Placement placement;
  std::vector<size_t> devices;  ///< of the main model, by rank
  size_t draft_device = 0;      ///< meaningful with a draft
  int max_model_len = 0;
  int64_t spare_bytes = 0;     ///< the least that any device has left; below zero: it does not fit
  size_t tightest_device = 0;  ///< the device with the least

  bool fits() const { return spare_bytes >= 0; }
};

/// Looks through the ways to place a request's models. Borrows request and history.
class PlanSearch {
 public:
  PlanSearch(const PlanRequest& request, const OverheadHistory& history);

  /// The way that `make_plan` describes; the one that is least short when none fits.
  PlanAttempt best();
  /// The largest context that any way would hold, up to the one that is wanted; 0 when none would.
  int largest_context();

 private:
  /// How many devices work on the main model, how they share it, and where an "auto" draft sits.
  struct Way {
    int ranks = 1;
    Split split = Split::kNone;
    /// The rank that the draft joins; from `ranks` on, the devices that the main model leaves
    /// unused, roomiest first. Means nothing where the draft's device is given.
    int draft_seat = 0;

    /// The seat at which logits appear.
    size_t leader() const { return split == Split::kLayer ? static_cast<size_t>(ranks) - 1 : 0; }
  };
  /// A device that works on the main model, and the bytes it has for its share.
  struct Seat {
    size_t device = 0;
    int64_t room = 0;
  };
  struct Seating {
    std::vector<Seat> seats;     ///< in rank order
    std::vector<size_t> unused;  ///< roomiest first; empty for a fixed list
    size_t draft_device = 0;
    int64_t draft_spare =
        0;  ///< what the draft leaves on a device that the main model does not use
  };
  /// A way's costs, which do not depend on the context.
  struct Costs {
    std::vector<RankBytes> ranks;           ///< whole model, tensor split
    std::optional<LayerSplitBytes> layers;  ///< layer split
  };

  void add_ways(int ranks);
  /// Adds to each way the other seats that an "auto" draft may take.
  void add_draft_seats();
  const Costs& costs(const Way& way);
  /// Of the main model's share; without a way: of a whole model.
  Overheads overheads(size_t device, const Way& way) const;
  Overheads overheads(size_t device) const { return overheads(device, Way{}); }
  int64_t room(size_t device) const;
  int64_t draft_bytes(size_t device, int length) const;
  /// What it takes more on another device than the leader's.
  int64_t round_copy_bytes(int length) const;
  /// The devices that a way takes, before an "auto" draft has joined one.
  Seating candidates(const Way& way, int length) const;
  Seating seat(const Way& way, int length) const;
  /// Bytes for layers on each device of a layer split.
  std::vector<int64_t> layer_rooms(const Way& way, const Seating& seating, int length);

  bool fits(const Way& way, int length);
  PlanAttempt place(const Way& way, int length);
  int largest_context(const Way& way, int limit);

  const PlanRequest& request_;
  const OverheadHistory& history_;
  std::vector<Way> ways_;                         ///< in order of preference
  std::map<std::pair<int, Split>, Costs> costs_;  ///< by ranks and split
  std::optional<RankBytes> draft_;
  int wanted_context_ = 0;
};

}  // namespace tandem
