#include "plan/planner.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "core/size.h"
#include "plan/draft_place.h"
#include "plan/plan_search.h"
#include "tandem/error.h"

namespace tandem {
namespace {

std::string_view split_name(Split split) { return split == Split::kTensor ? "tensor" : "layer"; }

ModelPlacement describe(const std::string& role, const PlacedModel& model,
                        const std::vector<PlanDevice>& devices) {
  ModelPlacement described;
  described.model = role;
  described.split = split_name(model.placement.split);
  for (size_t rank = 0; rank < model.devices.size(); ++rank) {
    const Range layers = model.placement.shards[rank].layers;
    described.devices.push_back(devices[model.devices[rank]].name());
    described.layers.push_back({static_cast<int>(layers.begin), static_cast<int>(layers.end - 1)});
  }
  return described;
}

void append_rows(DevicePlan& device, const PlannedModel& model, const PlacedModel& placed,
                 size_t index, const Overheads& overheads, DeviceKind kind, int max_model_len,
                 bool apart) {
  for (size_t rank = 0; rank < placed.devices.size(); ++rank) {
    if (placed.devices[rank] != index) continue;
    const std::vector<MemoryRow> rows =
        rank_rows(model, placed.placement.shards[rank], overheads, kind, max_model_len, apart);
    device.rows.insert(device.rows.end(), rows.begin(), rows.end());
  }
}

/// Writes down one device: capacity = reserve + rows + free wherever the plan fits.
DevicePlan describe_device(const PlanRequest& request, const Plan& plan, size_t index,
                           const OverheadHistory& history, int max_model_len) {
  const PlanDevice& device = request.devices[index];
  const auto holds = [&](const PlacedModel& model) {
    return std::find(model.devices.begin(), model.devices.end(), index) != model.devices.end();
  };
  const Overheads alone = expected_overheads(device.id.kind, device.hardware, 1, Split::kNone,
                                             history, device.has_context);

  DevicePlan described;
  described.name = device.name();
  described.capacity_bytes = device.capacity_bytes;
  const bool used = holds(plan.main) || (plan.draft && holds(*plan.draft));
  described.reserve_bytes = std::min(device.reserve_bytes, device.free_bytes);
  if (used && alone.context_bytes > 0) {
    described.rows.push_back({"device", MemoryPurpose::kContext, alone.context_bytes});
  }
  if (plan.draft) {
    append_rows(described, *request.draft, *plan.draft, index, alone, device.id.kind, max_model_len,
                plan.draft_is_apart());
  }
  const Overheads shared =
      expected_overheads(device.id.kind, device.hardware, plan.main.placement.ranks(),
                         plan.main.placement.split, history);
  append_rows(described, request.main, plan.main, index, shared, device.id.kind, max_model_len,
              /*apart=*/false);

  const uint64_t taken = described.bytes_of("");
  if (device.capacity_bytes > device.free_bytes) {
    described.rows.push_back(
        {"other", MemoryPurpose::kInUse, device.capacity_bytes - device.free_bytes});
  }
  uint64_t room = device.free_bytes - std::min(device.free_bytes, described.reserve_bytes);
  if (device.limit_bytes && *device.limit_bytes < room) {
    described.rows.push_back({"other", MemoryPurpose::kBeyondLimit, room - *device.limit_bytes});
    room = *device.limit_bytes;
  }
  described.free_bytes = room > taken ? room - taken : 0;
  return described;
}

/// Says what leaves nothing of a device; empty where something is left.
std::string nothing_left(const PlanDevice& device) {
  if (device.reserve_bytes < device.free_bytes) return "";
  const uint64_t in_use = device.capacity_bytes - device.free_bytes;
  std::string text = ": the reserve of " + format_size(device.reserve_bytes);
  if (in_use > 0) text += " and the " + format_size(in_use) + " in use";
  return text + " leave 0 B";
}

MemoryShortfall describe_shortfall(const PlanRequest& request, const Plan& plan,
                                   const PlanAttempt& attempt, int largest_context) {
  MemoryShortfall shortfall;
  const DevicePlan& device = plan.memory.devices[attempt.tightest_device];
  shortfall.device = device.name;
  shortfall.bytes = static_cast<uint64_t>(-attempt.spare_bytes);
  shortfall.max_model_len = largest_context;
  const uint64_t needed = device.bytes_of("");
  const uint64_t room = needed > shortfall.bytes ? needed - shortfall.bytes : 0;
  shortfall.message = "does not fit: " + device.name + " is " + format_size(shortfall.bytes) +
                      " short (" + format_size(needed) + " needed at a context of " +
                      std::to_string(plan.memory.max_model_len) + ", " + format_size(room) +
                      " to be had of " + format_size(device.capacity_bytes) +
                      nothing_left(request.devices[attempt.tightest_device]) + "); ";
  if (largest_context > 0) {
    shortfall.message += "the largest context that would fit is " +
                         std::to_string(largest_context) + " (main.max_model_len)";
  } else {
    shortfall.message += "no context would fit: add devices, quantise, or take ";
    shortfall.message += request.draft ? "a smaller draft or main model" : "a smaller model";
  }
  return shortfall;
}

void check(const PlanRequest& request) {
  if (request.main_devices.empty())
    throw ConfigError("main.devices: no device to put the main model on");
  for (const PlanDevice& device : request.devices) {
    if (device.id.kind != request.devices.front().id.kind) {
      throw ConfigError("main.devices: " + request.devices.front().name() + " and " +
                        device.name() + " cannot work together; name devices of one kind");
    }
  }
  check_runs_on(request.main.config, request.devices.front().id.kind);
  if (request.draft) check_runs_on(request.draft->config, request.devices.front().id.kind);
  const int limit = request.main.config.max_position_embeddings;
  if (request.max_model_len && (*request.max_model_len < 1 || *request.max_model_len > limit)) {
    throw ConfigError("main.max_model_len: " + std::to_string(*request.max_model_len) +
                      " is outside [1, " + std::to_string(limit) + "], the context of " +
                      request.main.config.source);
  }
}

}  // namespace

int PlanRequest::wanted_context() const {
  const int limit = main.config.max_position_embeddings;
  return max_model_len.value_or(std::min(limit, auto_limit.value_or(limit)));
}

double Plan::cost_ratio() const {
  return main_pass_bytes == 0
             ? 0
             : static_cast<double>(draft_pass_bytes) / static_cast<double>(main_pass_bytes);
}

Plan make_plan(const PlanRequest& request, const OverheadHistory& history) {
  check(request);
  PlanSearch search(request, history);
  const PlanAttempt attempt = search.best();
  const DeviceKind kind = request.devices.front().id.kind;

  Plan plan;
  plan.main = {attempt.placement, attempt.devices, request.main.limits(attempt.max_model_len)};
  plan.main_pass_bytes = request.main.pass_bytes(plan.main.placement, kind);
  if (request.draft) {
    plan.draft = PlacedModel{whole_placement(request.draft->config),
                             {attempt.draft_device},
                             request.draft->limits(attempt.max_model_len)};
    plan.draft_pass_bytes = request.draft->pass_bytes(plan.draft->placement, kind);
  }

  MemoryPlan& memory = plan.memory;
  memory.fits = attempt.fits();
  memory.max_model_len = attempt.max_model_len;
  for (size_t index = 0; index < request.devices.size(); ++index) {
    memory.devices.push_back(describe_device(request, plan, index, history, attempt.max_model_len));
  }
  if (plan.draft) {
    memory.placement.push_back(describe("draft", *plan.draft, request.devices));
    plan.draft_place = draft_place_reason(request, plan, history);
  }
  memory.placement.push_back(describe("main", plan.main, request.devices));
  if (!memory.fits) {
    memory.shortfall = describe_shortfall(request, plan, attempt, search.largest_context());
  }
  return plan;
}

}  // namespace tandem
