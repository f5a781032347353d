#pragma once

#include <deque>

#include "spec/cost_estimate.h"
#include "spec/draft_length.h"
#include "spec/round_yield.h"
#include "tandem/speedup.h"

namespace tandem {

/// Chooses the K that maximises E(K) - R T(K), K = 0 included: what a round is expected to give,
/// less what its time would give elsewhere, R tokens per plain step in the long run, at least 1
/// (the fixed point of E / T, Dinkelbach 1967; unlike that ratio it also weighs rounds in which
/// nothing can be drafted). E comes from the acceptance of the rounds read so far, T from a table.
///
/// Where drafting does not seem to pay it goes on while that may be chance, and is tried again now
/// and then: the rounds in between double after each failure. What a text has shown of E
/// counts less with every token, drafted or not, so that a bad passage does not end drafting. All
/// that drafting loses without a draft having stood stays below a small share of the text's time.
///
/// With a table that stands, a function of the table and of the outcomes since `start` alone, never
/// of the clock and of earlier texts. With one that is only a beginning, what rounds really take
/// corrects it from text to text, and a text begins with what drafting gave in earlier ones.
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
  /// K of the next round where the request leaves it open.
  int choose();
  /// The best of K = lowest … max_drafts_. @param tokens_per_step R
  int best(int lowest, double tokens_per_step) const;
  /// R: what rounds gave lately, but no more than the best K is expected to give.
  double tokens_per_step() const;
  double best_rate() const;
  /// Whether to draft against the odds: because they are not sure yet, or to learn again.
  bool may_try(int num_drafts) const;
  /// Whether some K pays if acceptance is better than it seems.
  bool may_pay() const;
  /// What a round of so many drafts loses if none stands, in plain steps.
  double loss_of(int num_drafts) const;
  bool affordable(int num_drafts) const;
  /// Whether this round is plain to see what that takes, though drafting seems to pay.
  bool look_at_plain();
  /// Takes over what rounds cost now.
  void adopt_costs();
  /// What a round took, in plain steps.
  double steps_of(const RoundOutcome& outcome, int drafts) const;

  int max_drafts_;
  CostEstimate estimate_;
  CostTable costs_;
  double catch_up_cost_ = 0;  ///< of a row, in plain steps
  double loss_share_ = 0;     ///< of the text's time
  bool can_pay_ = true;       ///< some K pays if every draft stands

  int wanted_ = 0;
  AcceptanceEstimate acceptance_;
  RoundYield yield_;
  double tokens_ = 0, steps_ = 0;  ///< of recent rounds, for R
  double balance_ = 0;             ///< what drafting has won and may lose, in plain steps
  std::deque<double> at_risk_;     ///< what the rounds not read yet may lose
  bool some_stood_ = false;        ///< a draft has stood in this text
  int failures_ = 0;               ///< rounds of this text in which none did
  int plain_rounds_ = 0;           ///< since the last round with drafts
  int probe_interval_ = 0;         ///< plain rounds before the next trial
  int launched_ = 0, read_ = 0;    ///< rounds of this text
  int probe_round_ = 0;            ///< the round that tries, once launched: none is tried beside it

  // From text to text, where costs are learnt.
  double won_ = 0;           ///< by drafting in the last text, in plain steps
  double look_credit_ = 0;   ///< plain steps that looks at what a plain step takes may cost
  int plain_look_left_ = 0;  ///< rounds of the look under way
};

}  // namespace tandem
