#include "plan/plan_search.h"

#include <algorithm>
#include <limits>

#include "tandem/error.h"

namespace tandem {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

/// No device is larger than this; amounts that people write may be. Sums of a few hundred stay in
/// range.
constexpr uint64_t kLargestBytes = 1ull << 52;

int64_t as_signed(uint64_t bytes) { return static_cast<int64_t>(std::min(bytes, kLargestBytes)); }

uint64_t model_overheads(const Overheads& overheads) {
  return overheads.workspaces_bytes + overheads.communicator_bytes + overheads.graphs_bytes;
}

}  // namespace

PlanSearch::PlanSearch(const PlanRequest& request, const OverheadHistory& history)
    : request_(request), history_(history) {
  wanted_context_ = request.wanted_context();
  if (request.draft) {
    draft_.emplace(*request.draft, ModelShard::whole(request.draft->config),
                   request.devices.front().id.kind);
  }
  int most = static_cast<int>(request.main_devices.size());
  if (request.choose_devices) most = std::min(most, request.most_ranks.value_or(most));
  for (int ranks = request.choose_devices ? 1 : most; ranks <= most; ++ranks) add_ways(ranks);
  if (ways_.empty()) {
    // Only a fixed list of several devices comes here: a single device is always possible.
    const auto tensor = tensor_split_obstacle(request.main.config, most);
    const auto layer = layer_split_obstacle(request.main.config, most);
    throw ConfigError(request.split == SplitChoice::kLayer || !tensor ? *layer : *tensor);
  }
  if (draft_ && !request.draft_device) add_draft_seats();
}

// In the order of what a round costs: see draft_place.h.
void PlanSearch::add_draft_seats() {
  const std::vector<Way> leading = std::move(ways_);
  ways_.clear();
  for (const Way& way : leading) {
    const int leader = static_cast<int>(way.leader());
    ways_.push_back({way.ranks, way.split, leader});
    for (int rank = 0; rank < way.ranks; ++rank) {
      if (rank != leader) ways_.push_back({way.ranks, way.split, rank});
    }
  }
  // A device for the draft alone comes last: the main model could use it as well.
  const int most = static_cast<int>(request_.main_devices.size());
  for (const Way& way : leading) {
    for (int seat = way.ranks; seat < most; ++seat) ways_.push_back({way.ranks, way.split, seat});
  }
}

void PlanSearch::add_ways(int ranks) {
  if (ranks == 1) {
    ways_.push_back({1, Split::kNone, 0});
    return;
  }
  const ModelConfig& config = request_.main.config;
  if (request_.split != SplitChoice::kLayer && !tensor_split_obstacle(config, ranks)) {
    ways_.push_back({ranks, Split::kTensor, 0});
  }
  if (request_.split != SplitChoice::kTensor && !layer_split_obstacle(config, ranks)) {
    ways_.push_back({ranks, Split::kLayer, 0});
  }
}

Overheads PlanSearch::overheads(size_t device, const Way& way) const {
  const PlanDevice& entry = request_.devices[device];
  return expected_overheads(entry.id.kind, entry.hardware, way.ranks, way.split, history_,
                            entry.has_context);
}

const PlanSearch::Costs& PlanSearch::costs(const Way& way) {
  const std::pair key(way.ranks, way.split);
  const auto known = costs_.find(key);
  if (known != costs_.end()) return known->second;
  const DeviceKind kind = request_.devices.front().id.kind;
  Costs costs;
  if (way.split == Split::kLayer) {
    costs.layers.emplace(request_.main, kind);
  } else {
    const Placement placement = way.split == Split::kTensor
                                    ? tensor_placement(request_.main.config, way.ranks)
                                    : whole_placement(request_.main.config);
    for (const ModelShard& shard : placement.shards)
      costs.ranks.emplace_back(request_.main, shard, kind);
  }
  return costs_.emplace(key, std::move(costs)).first->second;
}

int64_t PlanSearch::room(size_t device) const {
  const PlanDevice& entry = request_.devices[device];
  // A reserve beyond what is free leaves nothing; it does not take what the models have elsewhere.
  int64_t bytes =
      std::max<int64_t>(as_signed(entry.free_bytes) - as_signed(entry.reserve_bytes), 0);
  if (entry.limit_bytes) bytes = std::min(bytes, as_signed(*entry.limit_bytes));
  return bytes - as_signed(overheads(device).context_bytes);
}

int64_t PlanSearch::draft_bytes(size_t device, int length) const {
  return draft_ ? as_signed(draft_->at(length) + model_overheads(overheads(device))) : 0;
}

int64_t PlanSearch::round_copy_bytes(int length) const {
  const auto& bytes = request_.draft->round_copy_bytes;
  return bytes ? as_signed(bytes(length)) : 0;
}

PlanSearch::Seating PlanSearch::candidates(const Way& way, int length) const {
  Seating seating;
  std::vector<Seat>& seats = seating.seats;
  for (const size_t device : request_.main_devices) {
    int64_t bytes = room(device) - as_signed(model_overheads(overheads(device, way)));
    if (request_.draft_device == device) bytes -= draft_bytes(device, length);
    seats.push_back({device, bytes});
  }
  if (!request_.choose_devices) return seating;
  const auto roomier = [](const Seat& a, const Seat& b) { return a.room > b.room; };
  std::stable_sort(seats.begin(), seats.end(), roomier);
  const auto ranks = static_cast<size_t>(way.ranks);
  for (size_t i = ranks; i < seats.size(); ++i) seating.unused.push_back(seats[i].device);
  seats.resize(ranks);
  // The leader has the draft and the logits besides its share, so it should be the roomiest.
  if (way.split == Split::kLayer) {
    std::sort(seats.begin(), seats.end(),
              [](const Seat& a, const Seat& b) { return a.device < b.device; });
    std::stable_sort(seats.begin(), seats.end(),
                     [&](const Seat& a, const Seat& b) { return roomier(b, a); });
  }
  return seating;
}

PlanSearch::Seating PlanSearch::seat(const Way& way, int length) const {
  Seating seating = candidates(way, length);
  seating.draft_spare = kUnlimited;
  if (!draft_) return seating;
  if (!request_.draft_device && way.draft_seat < way.ranks) {
    Seat& joined = seating.seats[static_cast<size_t>(way.draft_seat)];
    joined.room -= draft_bytes(joined.device, length);
    if (static_cast<size_t>(way.draft_seat) != way.leader()) {
      joined.room -= round_copy_bytes(length);
    }
    seating.draft_device = joined.device;
    return seating;
  }
  seating.draft_device = request_.draft_device
                             ? *request_.draft_device
                             : seating.unused[static_cast<size_t>(way.draft_seat - way.ranks)];
  if (seating.seats[way.leader()].device == seating.draft_device) return seating;
  const auto shared =
      std::find_if(seating.seats.begin(), seating.seats.end(),
                   [&](const Seat& seat) { return seat.device == seating.draft_device; });
  if (shared != seating.seats.end()) {
    shared->room -= round_copy_bytes(length);
  } else {
    seating.draft_spare = room(seating.draft_device) - draft_bytes(seating.draft_device, length) -
                          round_copy_bytes(length);
  }
  return seating;
}

std::vector<int64_t> PlanSearch::layer_rooms(const Way& way, const Seating& seating, int length) {
  const LayerSplitBytes& bytes = *costs(way).layers;
  std::vector<int64_t> rooms;
  for (int rank = 0; rank < way.ranks; ++rank) {
    rooms.push_back(seating.seats[static_cast<size_t>(rank)].room -
                    as_signed(bytes.base(rank, way.ranks, length)));
  }
  return rooms;
}

bool PlanSearch::fits(const Way& way, int length) {
  const Seating seating = seat(way, length);
  if (seating.draft_spare < 0) return false;
  const Costs& cost = costs(way);
  if (way.split == Split::kLayer)
    return layers_fit(cost.layers->layers(length), layer_rooms(way, seating, length));
  for (size_t rank = 0; rank < seating.seats.size(); ++rank) {
    if (seating.seats[rank].room < as_signed(cost.ranks[rank].at(length))) return false;
  }
  return true;
}

PlanAttempt PlanSearch::place(const Way& way, int length) {
  const Seating seating = seat(way, length);
  const Costs& cost = costs(way);
  PlanAttempt attempt;
  attempt.draft_device = seating.draft_device;
  attempt.max_model_len = length;
  attempt.spare_bytes = seating.draft_spare;
  attempt.tightest_device = seating.draft_device;

  std::vector<int64_t> spare;
  if (way.split == Split::kLayer) {
    const std::vector<uint64_t> layers = cost.layers->layers(length);
    spare = layer_rooms(way, seating, length);
    const std::vector<Range> runs = balance_layers(layers, spare);
    for (size_t rank = 0; rank < runs.size(); ++rank) {
      for (int64_t layer = runs[rank].begin; layer < runs[rank].end; ++layer) {
        spare[rank] -= as_signed(layers[static_cast<size_t>(layer)]);
      }
    }
    attempt.placement = layer_placement(request_.main.config, runs);
  } else {
    for (size_t rank = 0; rank < seating.seats.size(); ++rank) {
      spare.push_back(seating.seats[rank].room - as_signed(cost.ranks[rank].at(length)));
    }
    attempt.placement = way.split == Split::kTensor
                            ? tensor_placement(request_.main.config, way.ranks)
                            : whole_placement(request_.main.config);
  }
  for (size_t rank = 0; rank < spare.size(); ++rank) {
    attempt.devices.push_back(seating.seats[rank].device);
    if (spare[rank] >= attempt.spare_bytes) continue;
    attempt.spare_bytes = spare[rank];
    attempt.tightest_device = seating.seats[rank].device;
  }
  return attempt;
}

int PlanSearch::largest_context(const Way& way, int limit) {
  if (fits(way, limit)) return limit;
  int low = 0;  // fits, or is nothing
  int high = limit;
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    (fits(way, middle) ? low : high) = middle;
  }
  return low;
}

int PlanSearch::largest_context() {
  int largest = 0;
  for (const Way& way : ways_) largest = std::max(largest, largest_context(way, wanted_context_));
  return largest;
}

PlanAttempt PlanSearch::best() {
  for (const Way& way : ways_) {
    if (fits(way, wanted_context_)) return place(way, wanted_context_);
  }
  int length = wanted_context_;
  if (!request_.max_model_len) {
    length = std::min(wanted_context_, kSmallestAutoContext);
    std::optional<Way> best_way;
    int largest = length - 1;
    for (const Way& way : ways_) {
      const int context = largest_context(way, wanted_context_);
      if (context <= largest) continue;
      largest = context;
      best_way = way;
    }
    if (best_way) return place(*best_way, largest);
  }
  std::optional<PlanAttempt> least_short;
  for (const Way& way : ways_) {
    PlanAttempt attempt = place(way, length);
    if (!least_short || attempt.spare_bytes > least_short->spare_bytes)
      least_short = std::move(attempt);
  }
  return *least_short;
}

}  // namespace tandem
