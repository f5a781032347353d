#include "bench/sample.h"

#include <cstdio>

namespace tandem::bench {

std::string Setting::draft_length() const {
  if (is_plain()) return "plain";
  return num_speculative_tokens == kAuto ? "auto" : std::to_string(num_speculative_tokens);
}

std::string Setting::label() const {
  std::string text = times_rounds ? "timing " : "";
  text += num_speculative_tokens > 0 ? "K=" + draft_length() : draft_length();
  if (!is_plain()) text += " " + rejection_sample_method;
  if (temperature > 0) {
    char number[32];
    std::snprintf(number, sizeof number, " T=%g", static_cast<double>(temperature));
    text += number;
  }
  return text;
}

}  // namespace tandem::bench
