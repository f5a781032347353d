#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/language_model.h"
#include "spec/draft_length.h"
#include "spec/drafter.h"
#include "spec/round_state.h"

namespace tandem {

/// One request's settings, checked by the engine.
struct DecodeSettings {
  DecodeRule rule;
  uint64_t seed = 0;
  int num_speculative_tokens = 0;  ///< K wanted; 0: plain decoding; kAutoDraftLength: the policy's
  int logprobs =
      -1;  ///< >= 0: the main model's log-probabilities of each token and of this many others
  bool expected_acceptance = false;  ///< measure it, where the rule has probabilities
  /// Not empty: in rounds that draft, acceptance is made up (SyntheticAcceptance): both models do
  /// all that they do otherwise, but the text is the draft's and means nothing.
  std::vector<double> synthetic_acceptance_rates = {};
  /// Whether a round is queued before the host has read the one in front of it. Empty: where the
  /// device works beside the host. Texts do not depend on it, unless the length policy's answers
  /// depend on what it was told so far.
  std::optional<bool> launch_ahead = std::nullopt;
};

/// Log-probabilities of one output token, before any transform.
struct RoundLogprobs {
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;
};

/// What the host reads of one round.
struct RoundResult {
  std::vector<int32_t> tokens;  ///< accepted drafts, then one more: 1 … K + 1
  int num_drafts = 0;           ///< K of this round
  int num_accepted = 0;         ///< tokens.size() - 1
  /// Of each draft, the sum over x of min(p(x), q(x)); when asked for and not greedy.
  std::vector<float> expected_acceptance;
  double draft_seconds = 0;             ///< by the device's clock
  double verify_seconds = 0;            ///< likewise: the main model's pass, acceptance and commit
  std::vector<RoundLogprobs> logprobs;  ///< one per token, when asked for
};

/// The loop of DESIGN 3: draft, verify, accept, commit. Owns the round's buffers and the streams;
/// borrows the main model. The text it yields does not depend on the drafter for greedy and coupled
/// decoding, and its distribution never does. One thread at a time.
///
/// Draft and main model have a stream each, joined by events; results ride to the host on a third.
/// The host waits once a round, for its results. Where it may (DecodeSettings::launch_ahead), it
/// queues the next round before that, so that the device never waits for the host: unless the
/// drafter works on the host, or the next K would hang on what the round at work gives (near the
/// token limit and the ends of the contexts). A round that was queued when a text ended is dropped
/// by the next `start` or `restart`.
///
/// An error of the device ends the text: every call but `start` then throws until one succeeds.
class SpeculativeDecoder {
 public:
  /// Bytes of device memory that the constructor takes beside the models and the drafter; pure
  /// arithmetic, for plans.
  static uint64_t bytes(const RoundShape& shape) { return RoundState::bytes(shape); }
  /// The shape of the rounds that a decoder made with these arguments has.
  static RoundShape round_shape(const LanguageModel& main, const Drafter* drafter, int max_drafts);

  /// Uses the main model's sequence 0.
  /// @param drafter    may be null: plain decoding
  /// @param max_drafts 0 … kMaxSpeculativeTokens
  /// @param policy     chooses K for each round; null: what the request asks for (FixedLength)
  /// @throws ShapeError when the model's passes are too narrow for max_drafts + 1 rows
  SpeculativeDecoder(LanguageModel& main, std::unique_ptr<Drafter> drafter, int max_drafts,
                     std::unique_ptr<DraftLengthPolicy> policy = nullptr);
  ~SpeculativeDecoder();

  /// Takes in a prompt of at least one token: queues the passes of all but the last one through
  /// both models, side by side, in chunks that do not depend on the drafter.
  /// @throws UsageError when the prompt is empty, holds an id that the main model lacks or leaves
  /// no room for a token, or when more than kMaxTopLogprobs log-probabilities are asked for
  void start(std::span<const int32_t> prompt, const DecodeSettings& settings);
  /// Starts another completion of the same prompt with another seed, without running the prompt
  /// again. @throws UsageError when there was no `start`, or as it does
  void restart(const DecodeSettings& settings);

  /// One round that yields at most `max_tokens` (>= 1) tokens: what the text may still take. From
  /// one call to the next it falls by no more than the tokens returned, because the next round may
  /// have been queued. The first round yields the first token of the text. The result is valid
  /// until the next call.
  /// @throws UsageError when the context is full, max_tokens < 1 or too low for a queued round, or
  /// nothing was started
  const RoundResult& round(int max_tokens);

  /// Tokens that the context still has room for: round may be called while this is > 0. Prompt and
  /// output together fill at most the main model's max_positions.
  int remaining_positions() const;

  /// What the prompt took on the device, both models together; known when the first round behind
  /// `start` has been read, 0 behind `restart`.
  double prefill_seconds() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
