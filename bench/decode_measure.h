#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/language_model.h"
#include "spec/speculative_decoder.h"

namespace tandem::bench {

/// Seconds of one forward pass alone, with logits of every row (of as many as the model gives), by
/// number of rows ([0] is unused): captured once, replayed back to back behind `context` positions;
/// the median of several repetitions in which all widths take turns.
std::vector<double> time_passes(LanguageModel& model, int widest, int context);

/// What one text gave, or several texts together.
struct DecodeRun {
  std::vector<int32_t> tokens;  ///< the text, the first token included; of one text alone
  int64_t timed_tokens = 0;     ///< behind the first round's
  int64_t rounds = 0;           ///< that gave them
  int64_t drafted = 0;
  int64_t accepted = 0;
  double seconds = 0;  ///< from the end of the first round, on the host's clock
  double draft_seconds = 0;
  double verify_seconds = 0;

  void add(const DecodeRun& other);
  double tokens_per_second() const;
  double mean_acceptance_length() const;  ///< tokens a round
  double acceptance_rate() const;
};

/// Decodes `tokens` tokens or a few more: every round has as many drafts as were asked for.
DecodeRun decode(SpeculativeDecoder& decoder, std::span<const int32_t> prompt,
                 const DecodeSettings& settings, int tokens);

double median(std::vector<double> values);

}  // namespace tandem::bench
