#include "engine/synthetic_check.h"

#include <algorithm>
#include <functional>

namespace tandem {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw UsageError("synthetic acceptance " + what);
}

}  // namespace

void check_synthetic_acceptance(const Request& request, const std::string& method,
                                int most_drafts) {
  const std::vector<double>& rates = request.synthetic_acceptance_rates;
  if (rates.empty()) return;
  for (const double rate : rates) {
    if (rate >= 0 && rate <= 1) continue;
    refuse("has a rate of " + std::to_string(rate) + "; expected numbers from 0 to 1");
  }
  if (!std::is_sorted(rates.begin(), rates.end(), std::greater<>())) {
    refuse("has rates that rise; each is the share of rounds in which all drafts up to it stand");
  }
  if (method == "none") refuse("needs something that drafts; the method is \"none\"");
  if (most_drafts == 0) refuse("needs rounds that draft; num_speculative_tokens is 0");
  if (std::cmp_greater(rates.size(), most_drafts)) {
    refuse("is given for " + std::to_string(rates.size()) + " drafts a round, of which " +
           std::to_string(most_drafts) + " are drafted at most; raise num_speculative_tokens");
  }
  if (request.params.logprobs >= 0) {
    refuse("gives a text that the main model did not choose; do not ask for its logprobs");
  }
  if (!request.params.stop.empty()) {
    refuse("gives a text that means nothing; leave out the stop strings");
  }
  if (request.measure_expected_acceptance) {
    refuse("leaves nothing to expect; do not measure the expected acceptance");
  }
}

}  // namespace tandem
