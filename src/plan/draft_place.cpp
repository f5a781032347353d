#include "plan/draft_place.h"

#include "core/size.h"
#include "plan/plan_search.h"

namespace tandem {
namespace {

/// How the same plan would do with the draft on the leader's device.
PlanAttempt beside_leader(const PlanRequest& request, const Plan& plan,
                          const OverheadHistory& history) {
  PlanRequest other = request;
  other.main_devices = plan.main.devices;
  other.choose_devices = false;
  other.draft_device = plan.leader_device();
  other.split =
      plan.main.placement.split == Split::kTensor ? SplitChoice::kTensor : SplitChoice::kLayer;
  other.max_model_len = plan.memory.max_model_len;
  return PlanSearch(other, history).best();
}

}  // namespace

uint64_t draft_crossing_bytes(const PlanRequest& request) {
  const auto drafts = static_cast<uint64_t>(request.main.max_logits_rows - 1);
  const auto vocab = static_cast<uint64_t>(request.main.config.vocab_size);
  const uint64_t drafted = drafts * (sizeof(int32_t) + vocab * sizeof(float));
  const uint64_t committed = (drafts + 2) * sizeof(int32_t);  // with the length
  return drafted + committed;
}

std::string draft_place_reason(const PlanRequest& request, const Plan& plan,
                               const OverheadHistory& history) {
  const auto name = [&](size_t device) { return request.devices[device].name(); };
  const std::string crossing = format_size(draft_crossing_bytes(request));
  const std::string leader = name(plan.leader_device());
  const std::string across = "a round sends up to " + crossing + " between " +
                             name(plan.draft->devices.front()) + " and " + leader;
  if (request.draft_device) {
    return plan.draft_is_apart() ? "as configured; " + across
                                 : "as configured, where logits appear: nothing crosses";
  }
  if (!plan.draft_is_apart()) {
    if (request.devices.size() == 1) return "the only device";
    return "chosen, since logits appear there: elsewhere a round would read as much and send up "
           "to " +
           crossing + " besides";
  }
  const PlanAttempt beside = beside_leader(request, plan, history);
  if (beside.fits()) return "chosen for the room it has; " + across;
  return "chosen, since with it on " + leader + " " + name(beside.tightest_device) + " would be " +
         format_size(static_cast<uint64_t>(-beside.spare_bytes)) + " short; " + across;
}

}  // namespace tandem
