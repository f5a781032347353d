#pragma once

#include <string>

#include "plan/planner.h"

namespace tandem {

/// What a table says about drafting besides the plan itself.
struct DraftOutlook {
  enum class Kind : uint8_t {
    kNone,   ///< no drafting: nothing is predicted
    kModel,  ///< a draft model, whose passes cost what they read
    kText,   ///< drafts are looked up in the text: no bytes
  };
  Kind kind = Kind::kNone;
  int max_drafts = 0;  ///< the largest K to be considered, at least 1
};

/// The plan for people: for each device a bar and a table of purposes, then where the layers are,
/// the context, and the speed-up predicted for acceptance rates 0.5 … 0.9. UTF-8, ends with a line
/// feed.
std::string plan_table(const PlanRequest& request, const Plan& plan, const DraftOutlook& outlook);

/// The acceptance rates of the table.
inline constexpr double kTableAcceptanceRates[] = {0.5, 0.6, 0.7, 0.8, 0.9};

/// One line of warning when no K up to the largest is predicted to gain at any of these rates; else
/// empty.
std::string no_gain_warning(const Plan& plan, const DraftOutlook& outlook);

}  // namespace tandem
