#include "bench/stats_json.h"

namespace tandem::bench {
namespace {

/// The fields, in one place: writing and reading cannot disagree.
template <typename StatsType, typename Visit>
void visit_fields(StatsType& stats, Visit&& visit) {
  visit("num_rounds", stats.num_rounds);
  visit("num_drafts", stats.num_drafts);
  visit("num_draft_tokens", stats.num_draft_tokens);
  visit("num_accepted_tokens", stats.num_accepted_tokens);
  visit("accepted_per_position", stats.accepted_per_position);
  visit("reached_per_position", stats.reached_per_position);
  visit("draft_lengths", stats.draft_lengths);
  visit("accepted_lengths", stats.accepted_lengths);
  visit("expected_acceptance_per_position", stats.expected_acceptance_per_position);
  visit("num_prompt_tokens", stats.num_prompt_tokens);
  visit("num_tokens", stats.num_tokens);
  visit("prefill_seconds", stats.prefill_seconds);
  visit("decode_seconds", stats.decode_seconds);
  visit("draft_seconds", stats.draft_seconds);
  visit("verify_seconds", stats.verify_seconds);
  visit("time_to_first_token_seconds", stats.time_to_first_token_seconds);
}

}  // namespace

nlohmann::ordered_json stats_to_json(const Stats& stats) {
  nlohmann::ordered_json json;
  visit_fields(stats, [&](const char* name, const auto& value) { json[name] = value; });
  return json;
}

Stats stats_from_json(const nlohmann::json& json) {
  Stats stats;
  visit_fields(stats, [&](const char* name, auto& value) { json.at(name).get_to(value); });
  return stats;
}

}  // namespace tandem::bench
