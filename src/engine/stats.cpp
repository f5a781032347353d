#include "tandem/stats.h"

#include <algorithm>

namespace tandem {

double Stats::acceptance_rate() const {
  if (num_draft_tokens == 0) return 0;
  return static_cast<double>(num_accepted_tokens) / static_cast<double>(num_draft_tokens);
}

double Stats::mean_acceptance_length() const {
  if (num_drafts == 0) return 1;
  return 1 + static_cast<double>(num_accepted_tokens) / static_cast<double>(num_drafts);
}

std::vector<double> Stats::acceptance_rate_per_position() const {
  std::vector<double> rates;
  rates.reserve(accepted_per_position.size());
  for (const int64_t accepted : accepted_per_position) {
    rates.push_back(
        num_drafts == 0 ? 0 : static_cast<double>(accepted) / static_cast<double>(num_drafts));
  }
  return rates;
}

double Stats::tokens_per_second() const {
  if (num_tokens < 2 || decode_seconds <= 0) return 0;
  return static_cast<double>(num_tokens - 1) / decode_seconds;
}

void Stats::add_round(int drafted, int kept_drafts, double round_draft_seconds,
                      double round_verify_seconds) {
  ++num_rounds;
  num_drafts += drafted > 0 ? 1 : 0;
  num_draft_tokens += drafted;
  num_accepted_tokens += kept_drafts;
  const auto positions = static_cast<size_t>(drafted);
  if (accepted_per_position.size() < positions) accepted_per_position.resize(positions);
  for (int i = 0; i < kept_drafts; ++i) ++accepted_per_position[static_cast<size_t>(i)];
  draft_seconds += round_draft_seconds;
  verify_seconds += round_verify_seconds;
}

Stats& Stats::operator+=(const Stats& other) {
  num_rounds += other.num_rounds;
  num_drafts += other.num_drafts;
  num_draft_tokens += other.num_draft_tokens;
  num_accepted_tokens += other.num_accepted_tokens;
  accepted_per_position.resize(
      std::max(accepted_per_position.size(), other.accepted_per_position.size()));
  for (size_t i = 0; i < other.accepted_per_position.size(); ++i) {
    accepted_per_position[i] += other.accepted_per_position[i];
  }
  num_prompt_tokens += other.num_prompt_tokens;
  num_tokens += other.num_tokens;
  prefill_seconds += other.prefill_seconds;
  decode_seconds += other.decode_seconds;
  draft_seconds += other.draft_seconds;
  verify_seconds += other.verify_seconds;
  time_to_first_token_seconds += other.time_to_first_token_seconds;
  return *this;
}

}  // namespace tandem
