#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tandem/engine.h"

namespace tandem::bench {

/// How one setting decodes. A setting belongs to a loaded pair.
struct Setting {
  static constexpr int kAuto = Request::kAuto;
  int num_speculative_tokens = 0;  ///< K; 0: plain decoding; kAuto: chosen round by round
  float temperature = 0;
  /// "greedy" at temperature 0 and "" for plain decoding, whatever the rule asked for: both decode
  /// alike with every rule.
  std::string rejection_sample_method;
  /// Acceptance is made up, to time rounds of this K for predictions; reported as that alone.
  bool times_rounds = false;

  bool is_plain() const { return num_speculative_tokens == 0; }
  /// The text is the plain run's by construction (DESIGN 4): greedy and coupled.
  bool promises_same_text() const {
    return rejection_sample_method != "rejection" && rejection_sample_method != "block";
  }
  std::string draft_length() const;  ///< "plain", "4", "auto"
  std::string label() const;         ///< "K=4 block T=0.8", "auto greedy", "plain T=1"
  bool operator==(const Setting&) const = default;
};

/// What one prompt gave under one setting: all its turns together.
struct Sample {
  size_t prompt = 0;  ///< number among the run's prompts
  int repeat = 0;
  size_t setting = 0;  ///< number among the pair's settings
  Stats stats;         ///< summed over the turns
  uint64_t hash = 0;   ///< of the token ids of every turn
  int turns = 0;       ///< that were answered; later ones no longer fit the context
};

}  // namespace tandem::bench
