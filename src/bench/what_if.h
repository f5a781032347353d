#pragma once

#include <string>
#include <vector>

#include "bench/report.h"
#include "tandem/speedup.h"

namespace tandem::bench {

/// A draft that costs something else than the measured one. Acceptance is taken to stay the same.
struct DraftVariant {
  std::string name;   ///< "as measured", "fp8 draft", "int4 draft", "draft on its own device"
  std::string basis;  ///< where its costs come from, for people
  CostTable costs;
};

/// The measured costs, and what they would be with other drafts: those whose passes cost the bytes
/// that they read (FP8 and INT4 projections over the format at hand), and one on a device of its
/// own whose work hides behind verification. Empty without costs; "as measured" alone where there
/// is no draft model.
std::vector<DraftVariant> draft_variants(const Config& config, const CostTable& measured);

/// The speed-up that a cost table predicts for every K, beside what was measured there.
struct WhatIf {
  float temperature = 0;
  std::string rejection_sample_method;
  /// Conditional acceptance by position, of the measured setting with the largest K: what
  /// predictions go by where K itself was not measured.
  std::vector<double> conditional;
  std::vector<std::string> variants;
  struct Row {
    int num_speculative_tokens = 0;
    const SettingReport* measured = nullptr;  ///< null where this K was not
    std::vector<double> ratio_to_plain;       ///< by variant
  };
  std::vector<Row> rows;
};

/// One for each temperature and rule of a pair that was measured at some fixed K, in their order.
std::vector<WhatIf> what_if(const PairReport& pair, const std::vector<DraftVariant>& variants);

}  // namespace tandem::bench
