#pragma once

#include <cstdint>
#include <string>

#include "plan/overhead_history.h"
#include "plan/planner.h"

namespace tandem {

/// The draft's place, by the plan's model of costs: what a round reads and sends, one step behind
/// the other.
///
/// Draft and main model take turns, so K draft passes and a main pass read the same bytes wherever
/// the draft is; only what crosses between devices differs. Beside the main model's leader, where
/// logits appear, nothing does; anywhere else the committed tokens cross one way and the drafts the
/// other, with their probabilities where the text is sampled. So "auto" takes the first of these
/// places where the draft fits: beside the leader, beside another rank, on a device to choose from
/// that the main model leaves unused.

/// Bytes that a sampled round of the most drafts sends between the devices of a draft that is
/// apart.
uint64_t draft_crossing_bytes(const PlanRequest& request);

/// Why the draft is where `plan` puts it, in a line for people. @pre plan has a draft
std::string draft_place_reason(const PlanRequest& request, const Plan& plan,
                               const OverheadHistory& history);

}  // namespace tandem
