#pragma once

#include <optional>
#include <vector>

#include "bench/bootstrap.h"
#include "bench/sample.h"

namespace tandem::bench {

/// What a setting gave on some prompts. Names and definitions are those of `Stats`; every figure
/// is a ratio of sums over the prompts, intervals come from `bootstrap`.
struct Summary {
  int num_prompts = 0;
  int num_samples = 0;    ///< prompts times repeats, where plain decoding was measured too
  int64_t num_texts = 0;  ///< of all samples: a conversation has one for each turn
  Stats totals;

  Estimate acceptance_rate;
  Estimate mean_acceptance_length;
  std::vector<Estimate> acceptance_rate_per_position;
  std::vector<Estimate> conditional_acceptance_rate_per_position;
  /// Expected sum of min(p, q) over the positions that `reached_per_position` counts, and at each;
  /// none where there are no probabilities.
  std::optional<Estimate> expected_acceptance;
  std::vector<Estimate> expected_acceptance_per_position;

  Estimate tokens_per_second;
  Estimate ratio_to_plain;  ///< tokens_per_second over that of plain decoding of the same prompts
  Estimate time_to_first_token_seconds;  ///< mean over the texts
  double prefill_seconds = 0, draft_seconds = 0, verify_seconds = 0;
  double rest_seconds = 0;  ///< of the whole time: neither prefill nor draft nor verification
  std::optional<Estimate> same_text_rate;  ///< share of samples whose tokens were the plain run's
};

/// The sample of a setting beside plain decoding of the same prompt in the same repeat.
struct Pair {
  const Sample* sample = nullptr;
  const Sample* plain = nullptr;
};

/// @param pairs of one setting; those of one prompt count as one draw of the bootstrap
/// @param compare_text false where texts cannot be compared (synthetic acceptance)
Summary summarize(const std::vector<Pair>& pairs, bool compare_text,
                  const BootstrapOptions& options = {});

}  // namespace tandem::bench
