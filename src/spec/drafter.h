#pragma once

#include <cstdint>
#include <span>

#include "backend/round_view.h"
#include "core/stream.h"

namespace tandem {

/// How the tokens of one request are chosen; fixed from `SpeculativeDecoder::start` to its last
/// round.
struct DecodeRule {
  enum class Kind : uint8_t { kGreedy, kRejection, kBlock, kCoupled };
  Kind kind = Kind::kGreedy;
  SamplingTransform transform;
  bool operator==(const DecodeRule&) const = default;
};

/// What a drafter is asked for in one round, known to the host when the round is launched.
struct DraftRequest {
  int length = 0;       ///< of the main cache, at least: the last token belongs at that position
  int most_length = 0;  ///< and at most: a round before this one may still be at work
  int num_drafts = 0;   ///< at least 1, at most `Drafter::capacity`
  int uncached = 0;     ///< rounds without drafts since the last call: how far a draft's cache lies
                        ///< behind besides the usual row
};

/// Proposes tokens. One file per drafter. Lives on the device of the round that it is given, the
/// main model's leading one unless a RemoteDrafter stands between. Whatever it proposes, the text
/// stays exact: a proposal may depend on all that was committed and drafted. One thread at a time.
class Drafter {
 public:
  virtual ~Drafter() = default;

  /// Forgets the last request and takes in the prompt: when `stream` is through, the drafter's
  /// cache, if it has one, holds the prompt but for its last token. `round` holds the prompt by the
  /// time the stream gets there.
  virtual void start(const RoundView& round, std::span<const int32_t> prompt,
                     const DecodeRule& rule, Stream& stream) = 0;

  /// Goes back to where the last `start` ended, for another completion of the same prompt.
  virtual void restart(const DecodeRule& rule) = 0;

  /// How many tokens it can propose in a round that begins at `length`, at most `wanted`; 0 beyond
  /// its context, never more for a greater length. A drafter that works on the host may know that
  /// there is nothing to propose.
  virtual int capacity(int length, int wanted) const = 0;

  /// Proposes up to `num_drafts` tokens into `round.drafts` (and `round.draft_probs`, unless every
  /// proposal is certain) and returns how many. A drafter that works on the device always returns
  /// `num_drafts`. `round` is the same from one `start` or `restart` to the next.
  virtual int draft(const RoundView& round, const DraftRequest& request, Stream& stream) = 0;

  /// True when drafts come without probabilities (n-gram): q is one-hot.
  virtual bool is_certain() const = 0;

  /// True when it works on the host, from what `observe` told: a round must have been read before
  /// the next one is drafted.
  virtual bool works_on_host() const = 0;

  /// The host has read these committed tokens. For drafters that work on the host.
  virtual void observe(std::span<const int32_t> tokens) = 0;
};

}  // namespace tandem
