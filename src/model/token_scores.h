#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/language_model.h"

namespace tandem {

/// What a model says after each of a list of tokens.
struct TokenScores {
  std::vector<std::vector<int32_t>>
      top_ids;  ///< by position, most likely first, ties to the lower id
  std::vector<std::vector<float>> top_logits;  ///< of these ids
  std::vector<float> logsumexp;                ///< over the whole vocabulary
};

/// Runs the ids through sequence 0 of the model in passes of at most `max_logits_rows` rows;
/// afterwards the sequence is empty. Sums are in float64 on the host.
/// @param top how many ids per position, at most the vocabulary
/// @throws UsageError when there are no ids, more than the context holds, or one outside the
/// vocabulary
TokenScores score_tokens(LanguageModel& model, std::span<const int32_t> ids, int top);

}  // namespace tandem
