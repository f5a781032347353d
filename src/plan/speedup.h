#pragma once

namespace tandem {

/// Mean acceptance length of a round: tokens per main-model pass when each of K drafted tokens
/// stands with probability `acceptance_rate`, independently: (1 - a^(K+1)) / (1 - a) (Leviathan et
/// al. 2022, eq. 1); K + 1 at a = 1.
double expected_round_tokens(double acceptance_rate, int num_drafts);

/// Bytes' bound of speculative over plain decoding: E / (1 + K b), b the draft's bytes per pass
/// over the main model's (Leviathan et al. 2022, theorem 3.8).
double predicted_speedup(double acceptance_rate, int num_drafts, double cost_ratio);

/// The number of drafted tokens that is predicted to pay most.
struct SpeedupPrediction {
  double acceptance_rate = 0;
  int num_drafts = 0;  ///< best K of 1 … max_drafts (the smallest of equals)
  double speedup = 1;  ///< at that K; not above 1: drafting does not pay
};
SpeedupPrediction best_speedup(double acceptance_rate, double cost_ratio, int max_drafts);

}  // namespace tandem
