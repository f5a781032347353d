#pragma once

#include <cstdint>
#include <vector>

namespace tandem::test {

/// The verification rules of DESIGN 5 as mathematics, in double precision: what the ops are checked
/// against, and what is checked by enumeration.

/// One round with K drafts.
struct RoundInput {
  std::vector<std::vector<double>> p;  ///< (K + 1, V) the main model's distributions
  std::vector<std::vector<double>> q;  ///< (K, V) what the drafts were drawn from
  std::vector<int> drafts;             ///< (K)
};

/// What a rule does with a round: it accepts tau drafts with probability `accepted[tau]`, and then
/// draws one more token from `next[tau]`.
struct RoundRule {
  /// rejection: thresholds[i] = P(draft i + 1 stands | those before stood).
  /// block: thresholds[i] = h_{i + 1}.
  std::vector<double> thresholds;         ///< (K)
  std::vector<double> accepted;           ///< (K + 1)
  std::vector<std::vector<double>> next;  ///< (K + 1, V); all 0 where accepted is 0
};
RoundRule rejection_rule(const RoundInput& input);
RoundRule block_rule(const RoundInput& input);

double mean_accepted(const RoundRule& rule);

}  // namespace tandem::test
