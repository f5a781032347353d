#include "engine/completion_builder.h"

#include <algorithm>
#include <utility>

namespace tandem {
namespace {

constexpr bool kSkipSpecial = true;
/// How far back a token is looked for that shows the decoder where the text goes on.
constexpr size_t kPrimeWindow = 64;

/// The text continues the prompt: decoders that strip a space from the beginning of a text must not
/// do so here. Pushes a token of the prompt that gives text at once and holds nothing back.
void prime(StreamDecoder& decoder, const Tokenizer& tokenizer, std::span<const int32_t> prompt) {
  for (size_t back = 1; back <= std::min(prompt.size(), kPrimeWindow); ++back) {
    const int32_t token = prompt[prompt.size() - back];
    StreamDecoder probe(tokenizer, kSkipSpecial);
    if (probe.push(token).empty() || !probe.flush().empty()) continue;
    decoder.push(token);
    return;
  }
}

}  // namespace

CompletionBuilder::CompletionBuilder(const Tokenizer& tokenizer,
                                     std::span<const int32_t> eos_token_ids,
                                     std::span<const int32_t> prompt, const SamplingParams& params,
                                     int index, uint64_t seed, const OnText& on_text)
    : eos_token_ids_(eos_token_ids),
      params_(params),
      on_text_(on_text),
      decoder_(tokenizer, kSkipSpecial),
      scanner_(params.stop) {
  prime(decoder_, tokenizer, prompt);
  completion_.index = index;
  completion_.seed = seed;
  completion_.prompt_token_ids.assign(prompt.begin(), prompt.end());
  completion_.stats.num_prompt_tokens = static_cast<int64_t>(prompt.size());
}

void CompletionBuilder::prefilled(double seconds) { completion_.stats.prefill_seconds = seconds; }

int CompletionBuilder::tokens_left() const {
  return ended() ? 0 : params_.max_tokens - static_cast<int>(completion_.token_ids.size());
}

void CompletionBuilder::take(const RoundResult& round, double seconds) {
  Stats& stats = completion_.stats;
  if (stats.num_rounds == 0) stats.time_to_first_token_seconds = seconds;
  stats.decode_seconds = seconds - stats.time_to_first_token_seconds;
  int kept = 0;
  while (kept < static_cast<int>(round.tokens.size()) && !ended()) {
    const auto i = static_cast<size_t>(kept);
    append(round.tokens[i], kept < round.num_accepted);
    if (params_.logprobs >= 0) {
      const RoundLogprobs& logprobs = round.logprobs[i];
      completion_.logprobs.push_back({round.tokens[i], logprobs.logprob, logprobs.top});
    }
    ++kept;
  }
  stats.add_round(round.num_drafts, round.num_accepted, std::min(kept, round.num_accepted),
                  round.draft_seconds, round.verify_seconds, round.expected_acceptance);
  stats.num_tokens += kept;
}

void CompletionBuilder::append(int32_t token, bool from_draft) {
  completion_.token_ids.push_back(token);
  last_from_draft_ = from_draft;
  const bool is_eos =
      std::find(eos_token_ids_.begin(), eos_token_ids_.end(), token) != eos_token_ids_.end();
  if (is_eos && !params_.ignore_eos) {
    end_ = FinishReason::kStop;
    return;
  }
  emit(scanner_.push(decoder_.push(token)), from_draft);
  if (scanner_.stopped()) {
    end_ = FinishReason::kStop;
  } else if (std::cmp_greater_equal(completion_.token_ids.size(), params_.max_tokens)) {
    end_ = FinishReason::kLength;
  }
}

void CompletionBuilder::emit(std::string text, bool from_draft) {
  if (text.empty()) return;
  completion_.text += text;
  if (on_text_) on_text_({completion_.index, text, from_draft});
}

Completion CompletionBuilder::finish(FinishReason reason) {
  emit(scanner_.push(decoder_.flush()), last_from_draft_);
  if (scanner_.stopped()) end_ = FinishReason::kStop;
  emit(scanner_.finish(), last_from_draft_);
  completion_.finish_reason = end_.value_or(reason);
  return std::move(completion_);
}

}  // namespace tandem
