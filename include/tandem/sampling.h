#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

/// How tokens are chosen. Transforms apply in this order, to draft and main model alike: penalties,
/// temperature, top-k, top-p, min-p. The defaults decode greedily.
struct SamplingParams {
  static constexpr int kMaxLogprobs = 20;  ///< the most that `logprobs` may be

  float temperature = 0.0f;         ///< 0 (greedy), or 0.001 … 100
  float top_p = 1.0f;               ///< (0, 1]
  int top_k = 0;                    ///< 0: all tokens
  float min_p = 0.0f;               ///< [0, 1]: keeps tokens with p >= min_p * max p
  float repetition_penalty = 1.0f;  ///< [0.01, 100]; over prompt and output (Keskar et al. 2019)
  float presence_penalty = 0.0f;    ///< [-2, 2]; over the output
  float frequency_penalty = 0.0f;   ///< [-2, 2]; over the output, per occurrence
  std::optional<uint64_t> seed;     ///< none: drawn at random and reported
  int max_tokens = 256;             ///< >= 1
  /// Generation ends before the first of these to be completed; they are not part of the text.
  std::vector<std::string> stop;
  bool ignore_eos = false;  ///< go on after an end-of-sequence token
  /// >= 0: report the log-probability of each token, and of this many likeliest ones; -1: none
  int logprobs = -1;

  /// @throws UsageError that names the field, the value and the range
  void validate() const;
};

}  // namespace tandem
