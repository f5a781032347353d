#include "tandem/stats.h"

#include <algorithm>

namespace tandem {
namespace {

template <typename T>
void grow(std::vector<T>& values, size_t size) {
  if (values.size() < size) values.resize(size);
}

template <typename T>
void add(std::vector<T>& to, const std::vector<T>& from) {
  grow(to, from.size());
  for (size_t i = 0; i < from.size(); ++i) to[i] += from[i];
}

}  // namespace

double Stats::mean_draft_length() const {
  if (num_rounds == 0) return 0;
  return static_cast<double>(num_draft_tokens) / static_cast<double>(num_rounds);
}

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

std::vector<double> Stats::conditional_acceptance_rate_per_position() const {
  std::vector<double> rates;
  rates.reserve(reached_per_position.size());
  for (size_t i = 0; i < reached_per_position.size(); ++i) {
    const int64_t reached = reached_per_position[i];
    rates.push_back(reached == 0 ? 0
                                 : static_cast<double>(accepted_per_position[i]) /
                                       static_cast<double>(reached));
  }
  return rates;
}

double Stats::tokens_per_second() const {
  if (num_tokens < 2 || decode_seconds <= 0) return 0;
  return static_cast<double>(num_tokens - 1) / decode_seconds;
}

void Stats::add_round(int drafted, int accepted, int kept_drafts, double round_draft_seconds,
                      double round_verify_seconds, std::span<const float> expected_acceptance) {
  ++num_rounds;
  grow(draft_lengths, static_cast<size_t>(drafted) + 1);
  ++draft_lengths[static_cast<size_t>(drafted)];
  draft_seconds += round_draft_seconds;
  verify_seconds += round_verify_seconds;
  if (drafted == 0) return;
  ++num_drafts;
  num_draft_tokens += drafted;
  num_accepted_tokens += kept_drafts;
  const auto positions = static_cast<size_t>(drafted), kept = static_cast<size_t>(kept_drafts);
  grow(accepted_per_position, positions);
  grow(reached_per_position, positions);
  grow(accepted_lengths, positions + 1);
  ++accepted_lengths[kept];
  // The position behind the accepted ones was judged too, unless the text ended before it.
  const size_t judged = accepted > kept_drafts ? kept : std::min(kept + 1, positions);
  for (size_t i = 0; i < kept; ++i) ++accepted_per_position[i];
  for (size_t i = 0; i < judged; ++i) ++reached_per_position[i];
  if (expected_acceptance.empty()) return;
  grow(expected_acceptance_per_position, positions);
  for (size_t i = 0; i < judged; ++i) {
    expected_acceptance_per_position[i] += static_cast<double>(expected_acceptance[i]);
  }
}

Stats& Stats::operator+=(const Stats& other) {
  num_rounds += other.num_rounds;
  num_drafts += other.num_drafts;
  num_draft_tokens += other.num_draft_tokens;
  num_accepted_tokens += other.num_accepted_tokens;
  add(accepted_per_position, other.accepted_per_position);
  add(reached_per_position, other.reached_per_position);
  add(draft_lengths, other.draft_lengths);
  add(accepted_lengths, other.accepted_lengths);
  add(expected_acceptance_per_position, other.expected_acceptance_per_position);
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
