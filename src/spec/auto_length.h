#pragma once

#include <array>

#include "backend/round_view.h"
#include "spec/cost_estimate.h"
#include "spec/draft_length.h"
#include "tandem/speedup.h"

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

/// Chooses the K that maximises E(K) - R T(K), K = 0 included: what a round is expected to give,
/// less what its time would give elsewhere, R tokens per plain step in the long run, at least 1
/// (the fixed point of E / T, Dinkelbach 1967; unlike that ratio it also weighs rounds in which
/// nothing can be drafted). E comes from the acceptance of the rounds read so far, T from a table.
///
/// Where drafting does not seem to pay it goes on while that may be chance, and is tried again now
/// and then: the rounds in between double after each failure. All that drafting loses stays below a
/// small share of the text's time.
///
/// With a table that stands, a function of the table and of the outcomes since `start` alone, never
/// of the clock. With one that is only a beginning, what rounds really take corrects it from text
/// to text.
class AutoLength final : public DraftLengthPolicy {
 public:
  /// Assumes costs of a typical pair until it is given others.
  explicit AutoLength(int max_drafts);
  /// From the next text on. @param learn whether rounds correct the table (CostEstimate)
  /// @throws UsageError when the table ends before max_drafts
  void set_costs(const CostTable& costs, bool learn = false);

  /// @param wanted a fixed K, or kAutoDraftLength
  void start(int wanted) override;
  int next() override;
  void observe(const RoundOutcome& outcome) override;

 private:
  /// What a round took, in plain steps.
  double steps_of(const RoundOutcome& outcome, int drafts) const;
  /// The best of K = lowest … max_drafts_. @param tokens_per_step R
  int best(int lowest, double tokens_per_step, double deviations = 0) const;
  double tokens_per_step() const;
  /// Whether this round is plain to see what that takes, though drafting seems to pay.
  bool look_at_plain();
  /// Takes over what rounds cost now.
  void adopt_costs();
  /// Whether to draft against the odds: because they are not sure yet, or to learn again.
  bool may_try(int num_drafts) const;

  int max_drafts_;
  CostEstimate estimate_;
  CostTable costs_;
  double catch_up_cost_ = 0;  ///< of a row, in plain steps
  double loss_share_ = 0;     ///< of the text's time
  bool can_pay_ = true;       ///< some K pays if every draft stands

  int wanted_ = 0;
  AcceptanceEstimate acceptance_;
  double tokens_ = 0, steps_ = 0;  ///< of recent rounds, for R
  double balance_ = 0;             ///< what drafting has won and may lose, in plain steps
  int plain_rounds_ = 0;           ///< since the last round with drafts
  int probe_interval_ = 0;         ///< plain rounds before the next trial
  int launched_ = 0, read_ = 0;    ///< rounds of this text
  int probe_round_ = 0;            ///< the round that tries, once launched: none is tried beside it

  // From text to text: looks at what a plain step takes, where costs are learnt.
  int until_plain_look_ = 0;  ///< rounds with drafts before the next
  int plain_look_left_ = 0;   ///< rounds of the one under way
};

}  // namespace tandem
