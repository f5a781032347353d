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
};

/// Proposes tokens. One file per drafter. Lives on the main model's leading device.
class Drafter {
 public:
  virtual ~Drafter() = default;

  /// Forgets the last request and takes in the prompt: afterwards the drafter's cache, if it has
  /// one, holds the prompt but for its last token.
  virtual void start(std::span<const int32_t> prompt, const DecodeRule& rule, Stream& stream) = 0;

  /// How many tokens it can propose in a round that begins at `length`, at most `wanted`; 0 beyond
  /// its context.
  virtual int capacity(int length, int wanted) const = 0;

  /// Proposes up to `num_drafts` tokens into `round.drafts` (and `round.draft_probs`, unless every
  /// proposal is certain) and returns how many. A drafter that works on the device always returns
  /// `num_drafts`.
  /// @param uncached rounds with no draft since the last call: how far its cache lies behind
  /// besides the usual row
  virtual int draft(const RoundView& round, int num_drafts, int uncached, Stream& stream) = 0;

  /// True when drafts come without probabilities (n-gram): q is one-hot.
  virtual bool is_certain() const = 0;

  /// The host has read these committed tokens. For drafters that work on the host.
  virtual void observe(std::span<const int32_t> tokens) = 0;
};

}  // namespace tandem
