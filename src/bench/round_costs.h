#pragma once

#include <vector>

#include "bench/run.h"
#include "bench/sample.h"
#include "tandem/speedup.h"

namespace tandem::bench {

/// What rounds of one temperature and rule were timed to cost.
struct RoundCosts {
  float temperature = 0;
  std::string rejection_sample_method;
  CostTable costs;
};

/// Settings that time rounds of 0 … max_drafts drafts for each temperature and rule of `settings`.
/// They take turns with the settings that they are to predict and see the same prompts, contexts
/// and caches, but acceptance is made up: nothing of the predicted figure goes in.
std::vector<Setting> timing_settings(const std::vector<Setting>& settings, int max_drafts);

/// Whether the timing settings run on the prompt with this number among those that fit: all of them
/// on every so many prompts, so that timing takes about a quarter of the whole.
bool times_rounds_at(size_t number, const std::vector<Setting>& settings);

/// The tables that the samples of timing settings give; none where some K is missing.
std::vector<RoundCosts> round_costs(const PairUnderTest& pair, const std::vector<Sample>& samples);

}  // namespace tandem::bench
