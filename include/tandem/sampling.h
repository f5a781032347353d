#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

/// How tokens are chosen. Transforms apply in this order, to draft and main model alike: penalties,
/// temperature, top-k, top-p, min-p. The defaults decode greedily.
struct SamplingParams {
  float temperature = 0.0f;         ///< >= 0; 0 is greedy
  float top_p = 1.0f;               ///< (0, 1]
  int top_k = 0;                    ///< 0: all tokens
  float min_p = 0.0f;               ///< [0, 1]: keeps tokens with p >= min_p * max p
  float repetition_penalty = 1.0f;  ///< > 0; over prompt and output (Keskar et al. 2019)
  float presence_penalty = 0.0f;    ///< over the output
  float frequency_penalty = 0.0f;   ///< over the output, per occurrence
  std::optional<uint64_t> seed;     ///< none: drawn at random and reported
  int max_tokens = 256;             ///< >= 1
  std::vector<std::string>
      stop;  ///< generation ends before the first of these; they are not part of the text
  bool ignore_eos = false;  ///< go on after an end-of-sequence token
  int logprobs = -1;  ///< >= 0: log-probability of each token, and of this many most likely ones

  /// @throws UsageError that names the field, the value and the range
  void validate() const;
};

}  // namespace tandem
