#pragma once

#include <cstdint>
#include <span>
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
  /// [i]: rounds that drafted position i and in which every position before it stood. A position
  /// behind the end of the text does not count.
  std::vector<int64_t> reached_per_position;
  std::vector<int64_t> draft_lengths;  ///< [K]: rounds in which K tokens were drafted
  /// [n]: rounds in which at least one token was drafted and exactly n became part of the output.
  std::vector<int64_t> accepted_lengths;
  /// [i]: sum of min(p, q) (see `Request::measure_expected_acceptance`) over the rounds that
  /// `reached_per_position` counts; empty when it was not measured.
  std::vector<double> expected_acceptance_per_position;

  int64_t num_prompt_tokens = 0;
  int64_t num_tokens = 0;  ///< generated, the end-of-sequence token included

  double prefill_seconds = 0;  ///< both models over the prompt
  double decode_seconds = 0;   ///< from the first token to the last
  double draft_seconds = 0;    ///< inside rounds: drafting
  double verify_seconds = 0;   ///< inside rounds: the main model's pass and the acceptance
  double time_to_first_token_seconds = 0;

  /// Drafted tokens a round, plain rounds included; 0 for no round.
  double mean_draft_length() const;
  /// accepted / drafted, a fraction; 0 when nothing was drafted.
  double acceptance_rate() const;
  /// 1 + accepted / num_drafts: the extra token counts; 1 when nothing was drafted.
  double mean_acceptance_length() const;
  /// [i]: share of num_drafts in which position i stood (unconditional).
  std::vector<double> acceptance_rate_per_position() const;
  /// [i]: share of `reached_per_position[i]` in which position i stood (conditional on those
  /// before).
  std::vector<double> conditional_acceptance_rate_per_position() const;
  /// (tokens - 1) / decode_seconds; 0 for fewer than two tokens.
  double tokens_per_second() const;

  /// Counts one round: `drafted` tokens were proposed, the rule accepted `accepted` of them,
  /// `kept_drafts` of these became part of the output.
  /// @param expected_acceptance of each drafted token, or empty
  void add_round(int drafted, int accepted, int kept_drafts, double round_draft_seconds,
                 double round_verify_seconds, std::span<const float> expected_acceptance = {});
  /// Adds the counts and times of another completion.
  Stats& operator+=(const Stats& other);
};

}  // namespace tandem
