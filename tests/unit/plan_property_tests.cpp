#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "plan/planner.h"
#include "random_plans.h"
#include "support/catch.h"
#include "tandem/error.h"

using namespace tandem;
using tandem::testing::RandomPlans;

namespace {

constexpr int kPlans = 6000;

uint64_t sum_of(const DevicePlan& device) {
  uint64_t sum = 0;
  for (const MemoryRow& row : device.rows) sum += row.bytes;
  return sum;
}

/// Rows add up, and nothing is taken beyond capacity, reserve and limit.
void check_devices(const PlanRequest& request, const Plan& plan) {
  REQUIRE(plan.memory.devices.size() == request.devices.size());
  for (size_t i = 0; i < request.devices.size(); ++i) {
    const PlanDevice& asked = request.devices[i];
    const DevicePlan& device = plan.memory.devices[i];
    REQUIRE(device.name == to_string(asked.id));
    for (const MemoryRow& row : device.rows) REQUIRE(row.bytes > 0);
    if (!plan.memory.fits) continue;
    REQUIRE(device.capacity_bytes == device.reserve_bytes + sum_of(device) + device.free_bytes);
    const uint64_t taken = device.bytes_of("");
    if (taken == 0) continue;
    REQUIRE(device.reserve_bytes == asked.reserve_bytes);
    REQUIRE(taken + asked.reserve_bytes <= asked.free_bytes);
    if (asked.limit_bytes) REQUIRE(taken <= *asked.limit_bytes);
  }
}

/// The rows of each model are what the memory formulas say for its shards, and the context is there
/// once.
void check_rows(const PlanRequest& request, const Plan& plan) {
  const auto row_bytes = [&](size_t device, const std::string& model, MemoryPurpose purpose) {
    uint64_t sum = 0;
    for (const MemoryRow& row : plan.memory.devices[device].rows) {
      if (row.model == model && row.purpose == purpose) sum += row.bytes;
    }
    return sum;
  };
  const DeviceKind kind = request.devices.front().id.kind;
  const auto check_model = [&](const PlannedModel& model, const PlacedModel& placed) {
    for (size_t rank = 0; rank < placed.devices.size(); ++rank) {
      const ModelShard& shard = placed.placement.shards[rank];
      const size_t device = placed.devices[rank];
      REQUIRE(row_bytes(device, model.role, MemoryPurpose::kWeights) ==
              weights_bytes(model.config, shard, model.formats, kind));
      REQUIRE(row_bytes(device, model.role, MemoryPurpose::kKvCache) ==
              kv_bytes(model.config, shard, placed.limits, kind));
      REQUIRE(row_bytes(device, model.role, MemoryPurpose::kActivations) ==
              activation_bytes(model.config, shard, model.formats, placed.limits, kind));
      REQUIRE(row_bytes(device, model.role, MemoryPurpose::kLogits) ==
              logits_bytes(model.config, shard, placed.limits));
    }
  };
  check_model(request.main, plan.main);
  if (request.draft) check_model(*request.draft, *plan.draft);
}

/// Consecutive ranges from 0 to `total`.
void check_partition(const std::vector<Range>& ranges, int64_t total) {
  int64_t next = 0;
  for (const Range& range : ranges) {
    REQUIRE(range.begin == next);
    REQUIRE(range.size() > 0);
    next = range.end;
  }
  REQUIRE(next == total);
}

void check_placement(const PlanRequest& request, const Plan& plan) {
  const ModelConfig& config = request.main.config;
  const Placement& placement = plan.main.placement;
  std::vector<size_t> devices = plan.main.devices;
  REQUIRE(devices.size() == placement.shards.size());
  std::sort(devices.begin(), devices.end());
  REQUIRE(std::adjacent_find(devices.begin(), devices.end()) == devices.end());
  for (const size_t device : devices) {
    REQUIRE(std::count(request.main_devices.begin(), request.main_devices.end(), device) == 1);
  }
  if (!request.choose_devices) REQUIRE(plan.main.devices == request.main_devices);

  std::vector<Range> layers, heads, mlp, vocab;
  int64_t next_kv_head = 0;
  for (const ModelShard& shard : placement.shards) {
    REQUIRE_NOTHROW(shard.validate(config));
    layers.push_back(shard.layers);
    heads.push_back(shard.heads);
    mlp.push_back(shard.mlp);
    vocab.push_back(shard.vocab);
    REQUIRE(shard.kv_heads.begin <=
            next_kv_head);  // no kv head is left out; copies only of a neighbour's
    REQUIRE(shard.kv_heads.end >= next_kv_head);
    next_kv_head = shard.kv_heads.end;
  }
  REQUIRE(next_kv_head == config.num_kv_heads);
  if (placement.split == Split::kTensor) {
    REQUIRE(request.split != SplitChoice::kLayer);
    check_partition(heads, config.num_heads);
    check_partition(mlp, config.intermediate_size);
    check_partition(vocab, config.vocab_size);
  } else {
    check_partition(layers, config.num_layers);
    REQUIRE(placement.shards.front().has_embedding);
    REQUIRE(placement.shards.back().has_head);
    if (placement.split == Split::kLayer) REQUIRE(request.split != SplitChoice::kTensor);
  }
  const ModelPlacement& described = plan.memory.placement.back();
  REQUIRE(described.model == "main");
  REQUIRE(described.layers.size() == placement.shards.size());
  for (size_t rank = 0; rank < layers.size(); ++rank) {
    REQUIRE(described.layers[rank].first == layers[rank].begin);
    REQUIRE(described.layers[rank].last == layers[rank].end - 1);
  }
  if (request.draft_device)
    REQUIRE(plan.draft->devices == std::vector<size_t>{*request.draft_device});
}

/// More memory anywhere keeps a fitting plan fitting, and its context at least as long.
void check_growth(RandomPlans& random, const PlanRequest& request, const Plan& plan,
                  const OverheadHistory& history) {
  if (!plan.memory.fits) return;
  PlanRequest larger = request;
  for (PlanDevice& device : larger.devices) {
    if (random.chance(0.5)) continue;
    const uint64_t more = random.up_to(device.capacity_bytes);
    device.capacity_bytes += more;
    device.free_bytes += more;
    if (device.limit_bytes) *device.limit_bytes += random.up_to(more);
  }
  const Plan grown = make_plan(larger, history);
  REQUIRE(grown.memory.fits);
  REQUIRE(grown.memory.max_model_len >= plan.memory.max_model_len);
}

/// The shortfall is exact: so much on every device, besides its reserve, is enough; the context it
/// names fits and no longer one does.
void check_shortfall(const PlanRequest& request, const Plan& plan, const OverheadHistory& history) {
  REQUIRE(plan.memory.fits == !plan.memory.shortfall);
  if (plan.memory.fits) return;
  const MemoryShortfall& shortfall = *plan.memory.shortfall;
  REQUIRE(plan.memory.device(shortfall.device) != nullptr);
  REQUIRE(shortfall.bytes > 0);

  PlanRequest richer = request;
  richer.max_model_len = plan.memory.max_model_len;
  for (PlanDevice& device : richer.devices) {
    const uint64_t beyond_free =
        device.reserve_bytes - std::min(device.reserve_bytes, device.free_bytes);
    device.capacity_bytes += shortfall.bytes + beyond_free;
    device.free_bytes += shortfall.bytes + beyond_free;
    if (device.limit_bytes) *device.limit_bytes += shortfall.bytes;
  }
  REQUIRE(make_plan(richer, history).memory.fits);

  PlanRequest shorter = request;
  if (shortfall.max_model_len > 0) {
    shorter.max_model_len = shortfall.max_model_len;
    REQUIRE(make_plan(shorter, history).memory.fits);
  }
  shorter.max_model_len = shortfall.max_model_len + 1;
  REQUIRE_FALSE(make_plan(shorter, history).memory.fits);
}

/// "auto" finds the largest context: one more position does not fit, on any number of devices.
void check_longest(const PlanRequest& request, const Plan& plan, const OverheadHistory& history) {
  if (!plan.memory.fits || request.max_model_len) return;
  REQUIRE(plan.memory.max_model_len <= request.main.config.max_position_embeddings);
  if (plan.memory.max_model_len == request.main.config.max_position_embeddings) return;
  PlanRequest longer = request;
  longer.max_model_len = plan.memory.max_model_len + 1;
  REQUIRE_FALSE(make_plan(longer, history).memory.fits);
}

/// Several devices are taken only where no single one would have done.
void check_several_needed(const PlanRequest& request, const Plan& plan,
                          const OverheadHistory& history) {
  const int ranks = plan.main.placement.ranks();
  if (!plan.memory.fits || !request.choose_devices || ranks == 1) return;
  for (const size_t device : request.main_devices) {
    PlanRequest fixed = request;
    fixed.choose_devices = false;
    fixed.max_model_len = plan.memory.max_model_len;
    fixed.main_devices = {device};
    REQUIRE_FALSE(make_plan(fixed, history).memory.fits);
  }
}

}  // namespace

TEST_CASE("random plans keep every promise of a plan") {
  RandomPlans random(20240817);
  const OverheadHistory history = RandomPlans::history();
  int planned = 0;
  int fitting = 0;
  int impossible = 0;
  int tensor = 0;
  int layer = 0;
  while (planned < kPlans) {
    const PlanRequest request = random.next();
    CAPTURE(planned, impossible);
    Plan plan;
    try {
      plan = make_plan(request, history);
    } catch (const ConfigError&) {
      // The only reason that a random request can give: a fixed list of more devices than the model
      // can be split over.
      REQUIRE_FALSE(request.choose_devices);
      REQUIRE(request.main_devices.size() > 1);
      ++impossible;
      continue;
    }
    ++planned;
    fitting += plan.memory.fits ? 1 : 0;
    tensor += plan.main.placement.split == Split::kTensor ? 1 : 0;
    layer += plan.main.placement.split == Split::kLayer ? 1 : 0;
    check_devices(request, plan);
    check_rows(request, plan);
    check_placement(request, plan);
    check_shortfall(request, plan, history);
    check_longest(request, plan, history);
    check_several_needed(request, plan, history);
    check_growth(random, request, plan, history);
    REQUIRE(MemoryPlan::from_json(plan.memory.to_json()) == plan.memory);
  }
  // The draw is worth nothing if it misses a kind of plan.
  CAPTURE(fitting, impossible, tensor, layer);
  CHECK(fitting > kPlans / 5);
  CHECK(fitting < kPlans * 4 / 5);
  CHECK(tensor > kPlans / 10);
  CHECK(layer > kPlans / 10);
}
