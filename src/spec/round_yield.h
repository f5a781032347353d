#pragma once

#include <array>
#include <cstddef>

#include "backend/round_view.h"

namespace tandem {

/// The chance that each draft position stands, estimated while a text is written: counts of recent
/// rounds, forgotten exponentially, over a prior. A position tried seldom leans on all of them
/// together.
class AcceptanceEstimate {
 public:
  void reset();
  /// Forgets, too, but begins the next text with what this one showed besides what is assumed of
  /// any draft.
  void begin_text();
  /// A round drafted `num_drafts` >= 1 tokens, and the first `num_accepted` stood.
  void observe(int num_drafts, int num_accepted);
  /// [i]: the chance that draft i stands when all before it do. @param deviations what is added, in
  /// standard deviations of the estimate
  std::array<double, kMaxSpeculativeTokens> conditional(double deviations = 0) const;

 private:
  std::array<double, kMaxSpeculativeTokens> tried_{};
  std::array<double, kMaxSpeculativeTokens> stood_{};
  double earlier_tried_ = 0, earlier_stood_ = 0;  ///< of all positions, in earlier texts
};

/// E(K), the tokens that a round of K drafts gives, for every K at once: what rounds of that K
/// would have given on the text so far.
///
/// Acceptance by position is not enough for that, because it hangs on K itself: rounds that end
/// early begin in other places. Where the draft fails at every fourth token, say, rounds of three
/// drafts always stand whole, but a round of two drafts leaves the next to begin at the token that
/// fails. So each token is marked, whether the draft knew it, and for each K the chances are kept
/// of how far the last token is from the beginning of its round.
///
/// The token behind a full acceptance was not drafted: it counts as known with a chance that the
/// caller gives, somewhat high at best, so that longer rounds are tried.
class RoundYield {
 public:
  RoundYield() { reset(); }
  /// Back to what is assumed of any draft.
  void reset();
  /// The next text begins with what the last ones showed.
  void begin_text();
  /// @param next the chance that one draft more would have stood
  void observe(int num_drafts, int num_accepted, double next);
  /// A token that was not drafted: what this text showed counts less beside what is assumed.
  void pass();
  /// E(K), at least 1. @pre 0 <= num_drafts <= kMaxSpeculativeTokens
  double tokens(int num_drafts) const;

 private:
  static constexpr std::size_t kLengths = kMaxSpeculativeTokens + 1;
  void mark(double known);

  std::array<double, kLengths> prior_{};   ///< E(K) before this text
  double prior_tokens_ = 0;                ///< its weight
  double tokens_ = 0;                      ///< of this text, forgotten exponentially
  std::array<double, kLengths> rounds_{};  ///< [K]: that they would have taken
  /// [K][i]: the chance that the next token is the i-th of its round; i = K is behind all drafts.
  std::array<std::array<double, kLengths>, kLengths> place_{};
};

}  // namespace tandem
