#pragma once

#include <vector>

#include "bench/report.h"
#include "tandem/config.h"
#include "tandem/speedup.h"

namespace tandem::bench {

/// The costs at hand, and what they would be with other drafts: those whose passes cost the bytes
/// that they read (FP8 and INT4 projections over the format at hand), and one on a device of its
/// own whose work hides behind verification. Empty without costs; "as measured" alone where there
/// is no draft model.
std::vector<DraftVariant> draft_variants(const Config& config, const PairReport& pair);

/// One for each temperature and rule of a pair that was measured at some fixed K, in their order;
/// from the costs timed for that rule, or else from the pair's table.
std::vector<WhatIf> what_if(const PairReport& pair);

}  // namespace tandem::bench
