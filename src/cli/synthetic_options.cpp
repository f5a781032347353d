#include "cli/synthetic_options.h"

#include <cstdio>

#include "backend/round_view.h"
#include "tandem/error.h"
#include "tandem/speedup.h"

namespace tandem::cli {
namespace {

std::string shortest(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

}  // namespace

void SyntheticOptions::add_to(CLI::App& sub, const std::string& group) {
  CLI::Option* const mean =
      sub.add_option("--synthetic-acceptance-length", length,
                     "Make acceptance up, to time a pair without its weights: the mean acceptance "
                     "length of drafting rounds, from 1; the text then means nothing")
          ->type_name("L")
          ->group(group);
  sub.add_option("--synthetic-acceptance-rates", given_rates,
                 "The same by position: share of drafting rounds in which all drafts up to it "
                 "stand, never rising")
      ->type_name("R[,R...]")
      ->delimiter(',')
      ->group(group)
      ->excludes(mean);
}

std::vector<double> SyntheticOptions::rates() const {
  if (!length) return given_rates;
  constexpr int kMost = kMaxSpeculativeTokens + 1;
  if (*length >= 1 && *length <= kMost) return acceptance_rates_of_length(*length);
  throw UsageError("--synthetic-acceptance-length is " + shortest(*length) +
                   "; expected a number from 1 to K + 1, at most " + std::to_string(kMost));
}

std::string SyntheticOptions::description() const {
  if (length) return "acceptance length " + shortest(*length);
  std::string text;
  for (const double rate : given_rates) text += (text.empty() ? "" : ", ") + shortest(rate);
  return text.empty() ? text : "acceptance rates " + text;
}

}  // namespace tandem::cli
