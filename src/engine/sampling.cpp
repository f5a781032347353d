#include "tandem/sampling.h"

#include <cmath>
#include <string>

#include "core/text.h"
#include "tandem/error.h"

namespace tandem {
namespace {

constexpr float kMaxPenalty = 2.0f;
// Beyond these, logits over- or underflow in float32 and no law is left to sample from.
constexpr float kMinTemperature = 1e-3f;
constexpr float kMaxTemperature = 100.0f;
constexpr float kMinRepetitionPenalty = 0.01f;
constexpr float kMaxRepetitionPenalty = 100.0f;

std::string shortest(float value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", static_cast<double>(value));
  return text;
}

void require(bool holds, const char* field, const std::string& value, const std::string& expected) {
  if (!holds) throw UsageError(std::string(field) + " is " + value + "; expected " + expected);
}

}  // namespace

void SamplingParams::validate() const {
  // Written so that NaN fails every comparison.
  require(temperature == 0.0f || (temperature >= kMinTemperature && temperature <= kMaxTemperature),
          "temperature", shortest(temperature), "0 (greedy) or a number in [0.001, 100]");
  require(top_p > 0.0f && top_p <= 1.0f, "top_p", shortest(top_p), "a number in (0, 1]");
  require(top_k >= 0, "top_k", std::to_string(top_k), "an integer >= 0 (0 keeps all tokens)");
  require(min_p >= 0.0f && min_p <= 1.0f, "min_p", shortest(min_p), "a number in [0, 1]");
  require(
      repetition_penalty >= kMinRepetitionPenalty && repetition_penalty <= kMaxRepetitionPenalty,
      "repetition_penalty", shortest(repetition_penalty),
      "a number in [0.01, 100] (1 changes nothing)");
  require(std::abs(presence_penalty) <= kMaxPenalty, "presence_penalty", shortest(presence_penalty),
          "a number in [-2, 2]");
  require(std::abs(frequency_penalty) <= kMaxPenalty, "frequency_penalty",
          shortest(frequency_penalty), "a number in [-2, 2]");
  require(max_tokens >= 1, "max_tokens", std::to_string(max_tokens), "an integer >= 1");
  require(logprobs >= -1 && logprobs <= kMaxLogprobs, "logprobs", std::to_string(logprobs),
          "an integer from 0 to " + std::to_string(kMaxLogprobs) + ", or -1 for none");
  for (const std::string& text : stop) {
    require(!text.empty(), "stop", "an empty string", "texts of at least one character");
    require(!find_invalid_utf8(text), "stop", "invalid UTF-8", "texts in UTF-8");
  }
}

}  // namespace tandem
