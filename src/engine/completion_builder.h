#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/stop_scanner.h"
#include "spec/speculative_decoder.h"
#include "tandem/engine.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/tokenizer.h"

namespace tandem {

/// Makes a completion of the rounds of a decoder: finds the end of the text inside a round's
/// tokens, turns tokens into text, hands final text on, and counts. Tokens behind the end are
/// dropped and count for nothing. One thread at a time. Borrows its arguments.
class CompletionBuilder {
 public:
  CompletionBuilder(const Tokenizer& tokenizer, std::span<const int32_t> eos_token_ids,
                    std::span<const int32_t> prompt, const SamplingParams& params, int index,
                    uint64_t seed, const OnText& on_text);

  /// The prompt took this long on the device.
  void prefilled(double seconds);
  /// Takes the tokens of a round that was finished this long after the beginning. Throws what
  /// `on_text` throws.
  void take(const RoundResult& round, double seconds);
  /// True after an end-of-sequence token, a stop string or the last token allowed.
  bool ended() const { return end_.has_value(); }
  int tokens_left() const;

  /// Hands on what was held back and returns the completion. @param reason of a text that has not
  /// ended by itself
  Completion finish(FinishReason reason);

 private:
  void append(int32_t token, bool from_draft);
  void emit(std::string text, bool from_draft);

  std::span<const int32_t> eos_token_ids_;
  const SamplingParams& params_;
  const OnText& on_text_;
  StreamDecoder decoder_;
  StopScanner scanner_;
  Completion completion_;
  std::optional<FinishReason> end_;
  bool last_from_draft_ = false;
};

}  // namespace tandem
