#pragma once

#include <array>

#include "backend/round_view.h"
#include "spec/draft_length.h"
#include "tandem/speedup.h"

namespace tandem {

/// What rounds cost by number of drafts: a table, corrected while it is used by the times of the
/// rounds themselves.
///
/// The logarithm of a round's time over the table's is taken as the machine's pace, which is common
/// to all rounds and wanders, plus what the table misses of this K over a plain step, which does so
/// slowly and is alike for neighbours, plus noise. A Kalman filter (Kalman 1960) tells the parts
/// apart: a change while K stays is the machine's, one that comes and goes with K is the table's.
class CostEstimate {
 public:
  /// Plain steps behind drafts, or behind a prompt, that tell nothing: they find the main model's
  /// weights out of the cache, where these come back to step by step.
  static constexpr int kUnsettledRounds = 24;

  /// Forgets what was learnt. @param learns false: the table stands, and nothing hangs on the clock
  void set(const CostTable& table, bool learns);
  bool learns() const { return learns_; }

  /// @param uncached rounds without drafts in front of it, whose rows a round with some caught up
  /// on
  void observe(const RoundOutcome& outcome, int uncached);

  /// What a plain step takes at the machine's pace now; 0 where nothing is learnt yet.
  double plain_seconds() const;

  /// What rounds cost now. Where it learns, all of a round stands under `verify_seconds`.
  const CostTable& costs() const { return costs_; }

 private:
  /// [0]: the pace; [K]: what the table misses of K drafts.
  static constexpr size_t kMostStates = kMaxSpeculativeTokens + 1;

  void update(size_t k, double logarithm);
  void correct();

  CostTable table_, costs_;
  bool learns_ = false;
  bool paced_ = false;  ///< some round has told the pace
  size_t states_ = 0;
  std::array<double, kMostStates> alike_{};  ///< correlation of states so far apart
  std::array<double, kMostStates> mean_{};
  std::array<std::array<double, kMostStates>, kMostStates> covariance_{};
};

}  // namespace tandem
