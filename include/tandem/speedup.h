#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// What the parts of a round cost, in seconds; only their ratios decide. Pure arithmetic.
struct CostTable {
  /// [K]: the main model's pass over K + 1 tokens with everything in a round but drafting; [0] is a
  /// step of plain decoding. (v)
  std::vector<double> verify_seconds;
  double draft_first_seconds = 0;  ///< the first draft pass of a round: two rows
  double draft_step_seconds = 0;   ///< each further one (c)
  /// For each round without drafts since the last one with some: the row that the draft's cache
  /// then lacks.
  double draft_catch_up_seconds = 0;

  /// The largest K that it knows.
  int max_drafts() const { return static_cast<int>(verify_seconds.size()) - 1; }
  /// K draft passes; 0 for K = 0.
  double draft_seconds(int num_drafts) const;
  /// T(K) in seconds. @pre 0 <= num_drafts <= max_drafts()
  double round_seconds(int num_drafts) const;
  /// T(K) in steps of plain decoding: round_seconds(K) / verify_seconds[0].
  double round_cost(int num_drafts) const;
  bool operator==(const CostTable&) const = default;

  /// A JSON object of these fields by name; `verify_seconds` must be there.
  /// @throws ConfigError with file, key and remedy: unknown key (names the nearest), no number, a
  /// number below 0, no list, text that is not JSON
  static CostTable from_file(const std::filesystem::path& path);
  /// @param name what messages call the text
  static CostTable from_json(std::string_view text, std::string_view name = "cost table");
  /// The file that would give this table.
  std::string to_json() const;
};

/// Costs where reading weights sets the pace: v(K) = 1 and c = `cost_ratio`, a draft pass's bytes
/// over a main pass's.
CostTable bandwidth_costs(double cost_ratio, int max_drafts);

/// The same machine with a draft whose passes cost `factor` times as much: for weights of another
/// format, the ratio of the bytes that a pass reads.
CostTable with_draft_cost(const CostTable& costs, double factor);

/// With drafting hidden behind verification: T(K) = max(v(K), draft(K)). The bound for a draft on a
/// device of its own that works while the main model does.
CostTable with_hidden_draft(const CostTable& costs);

/// E(K): tokens that a round of K drafts gives, 1 + sum over k <= K of a_1 … a_k (Leviathan et al.
/// 2022, eq. 1, where every a_i is one acceptance rate).
/// @param conditional [i]: the share of rounds in which draft i stood among those in which all
///        before it did; beyond its end the last one holds
double expected_round_tokens(std::span<const double> conditional, int num_drafts);

/// The unconditional acceptance by position whose mean acceptance length is `length` and which
/// varies least about it: position i stands in every round, in a share of them, or in none.
/// @pre length >= 1
std::vector<double> acceptance_rates_of_length(double length);

/// The expected share of plain decoding's speed, E(K) / T(K) with T in plain steps (Leviathan et
/// al. 2022, theorem 3.8, where v(K) = 1).
double predicted_speedup(const CostTable& costs, std::span<const double> conditional,
                         int num_drafts);

/// The ratio that `Stats::tokens_per_second` of a text of `num_tokens` tokens is expected to have
/// to that of plain decoding. It exceeds `predicted_speedup`: the time of a text's first round
/// counts as time to the first token, while all its tokens but one count as decoded afterwards.
/// @param round_tokens E(K), measured or expected
double predicted_rate_ratio(const CostTable& costs, double round_tokens, int num_drafts,
                            int64_t num_tokens);

/// The number of drafted tokens that is predicted to pay most.
struct SpeedupPrediction {
  int num_drafts = 0;  ///< best K of 1 … max_drafts (the smallest of equals)
  double speedup = 1;  ///< at that K; not above 1: drafting does not pay
};
SpeedupPrediction best_speedup(const CostTable& costs, std::span<const double> conditional);

}  // namespace tandem
