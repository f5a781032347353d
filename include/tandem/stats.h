#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

/// What one completion did. A token behind an end-of-sequence token, a stop string or the limit
/// does not count.
struct Stats {
  int64_t num_rounds = 0;                      ///< passes of the main model after the prefill
  int64_t num_drafts = 0;                      ///< rounds in which at least one token was drafted
  int64_t num_draft_tokens = 0;                ///< drafted
  int64_t num_accepted_tokens = 0;             ///< drafted tokens that became part of the output
  std::vector<int64_t> accepted_per_position;  ///< [i]: rounds in which draft position i stood

  int64_t num_prompt_tokens = 0;
  int64_t num_tokens = 0;  ///< generated, the end-of-sequence token included

  double prefill_seconds = 0;  ///< both models over the prompt
  double decode_seconds = 0;   ///< from the first token to the last
  double draft_seconds = 0;    ///< inside rounds: drafting
  double verify_seconds = 0;   ///< inside rounds: the main model's pass and the acceptance
  double time_to_first_token_seconds = 0;

  /// accepted / drafted, a fraction; 0 when nothing was drafted.
  double acceptance_rate() const;
  /// 1 + accepted / num_drafts: the extra token counts; 1 when nothing was drafted.
  double mean_acceptance_length() const;
  /// [i]: share of num_drafts in which position i stood (unconditional).
  std::vector<double> acceptance_rate_per_position() const;
  /// (tokens - 1) / decode_seconds; 0 for fewer than two tokens.
  double tokens_per_second() const;

  /// Counts one round: `drafted` tokens were proposed, `kept_drafts` of them became part of the
  /// output.
  void add_round(int drafted, int kept_drafts, double round_draft_seconds,
                 double round_verify_seconds);
  /// Adds the counts and times of another completion.
  Stats& operator+=(const Stats& other);
};

}  // namespace tandem
