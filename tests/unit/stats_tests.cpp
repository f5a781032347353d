#include <cmath>
#include <limits>

#include "support/catch.h"
#include "tandem/error.h"
#include "tandem/sampling.h"
#include "tandem/stats.h"

using tandem::SamplingParams;
using tandem::Stats;
using tandem::UsageError;

TEST_CASE("Ratios of nothing are defined") {
  const Stats stats;
  CHECK(stats.acceptance_rate() == 0.0);
  CHECK(stats.mean_acceptance_length() == 1.0);
  CHECK(stats.acceptance_rate_per_position().empty());
  CHECK(stats.tokens_per_second() == 0.0);
  CHECK(stats.mean_draft_length() == 0.0);
}

TEST_CASE("Rounds add up") {
  Stats stats;
  stats.add_round(4, 4, 4, 0.25, 0.5);
  stats.add_round(4, 1, 1, 0.25, 0.5);
  stats.add_round(0, 0, 0, 0.0, 0.5);  // plain
  stats.add_round(2, 0, 0, 0.25, 0.5);
  CHECK(stats.num_rounds == 4);
  CHECK(stats.num_drafts == 3);
  CHECK(stats.num_draft_tokens == 10);
  CHECK(stats.num_accepted_tokens == 5);
  CHECK(stats.accepted_per_position == std::vector<int64_t>{2, 1, 1, 1});
  CHECK(stats.acceptance_rate() == 0.5);
  CHECK(stats.mean_acceptance_length() == Approx(1 + 5.0 / 3.0));
  CHECK(stats.acceptance_rate_per_position() ==
        std::vector<double>{2 / 3., 1 / 3., 1 / 3., 1 / 3.});
  CHECK(stats.draft_lengths == std::vector<int64_t>{1, 0, 1, 0, 2});
  CHECK(stats.mean_draft_length() == 2.5);
  CHECK(stats.draft_seconds == 0.75);
  CHECK(stats.verify_seconds == 2.0);
}

TEST_CASE("Positions that never stood count as zero") {
  Stats stats;
  stats.add_round(3, 0, 0, 0, 0);
  CHECK(stats.acceptance_rate_per_position() == std::vector<double>{0, 0, 0});
}

TEST_CASE("Conditional acceptance counts the rounds that came as far") {
  Stats stats;
  stats.add_round(3, 3, 3, 0, 0);
  stats.add_round(3, 1, 1, 0, 0);
  stats.add_round(3, 0, 0, 0, 0);
  stats.add_round(1, 1, 1, 0, 0);  // position 1 was not drafted: it says nothing of it
  CHECK(stats.reached_per_position == std::vector<int64_t>{4, 2, 1});
  CHECK(stats.accepted_lengths == std::vector<int64_t>{1, 2, 0, 1});
  CHECK(stats.conditional_acceptance_rate_per_position() == std::vector<double>{0.75, 0.5, 1.0});
}

TEST_CASE("What stood behind the end of a text was neither accepted nor refused") {
  Stats stats;
  stats.add_round(4, 3, 1, 0, 0, std::vector<float>{0.5f, 0.25f, 0.125f, 0.0625f});
  CHECK(stats.num_accepted_tokens == 1);
  CHECK(stats.accepted_lengths == std::vector<int64_t>{0, 1, 0, 0, 0});
  CHECK(stats.reached_per_position == std::vector<int64_t>{1, 0, 0, 0});
  CHECK(stats.expected_acceptance_per_position == std::vector<double>{0.5, 0, 0, 0});
  stats.add_round(2, 0, 0, 0, 0, std::vector<float>{0.25f, 1.0f});
  CHECK(stats.expected_acceptance_per_position == std::vector<double>{0.75, 0, 0, 0});
}

TEST_CASE("Tokens per second leave out the first token, which the prefill's time paid for") {
  Stats stats;
  stats.num_tokens = 101;
  stats.decode_seconds = 0.5;
  CHECK(stats.tokens_per_second() == 200.0);
  stats.num_tokens = 1;
  CHECK(stats.tokens_per_second() == 0.0);
}

TEST_CASE("Statistics of several completions add up") {
  Stats a, b;
  a.add_round(1, 1, 1, 1, 2);
  b.add_round(3, 2, 2, 4, 8);
  a.num_tokens = 2;
  b.num_tokens = 3;
  a.num_prompt_tokens = b.num_prompt_tokens = 7;
  a.prefill_seconds = b.prefill_seconds = 1;
  a.decode_seconds = b.decode_seconds = 2;
  a.time_to_first_token_seconds = b.time_to_first_token_seconds = 3;
  a += b;
  CHECK(a.num_rounds == 2);
  CHECK(a.num_drafts == 2);
  CHECK(a.num_draft_tokens == 4);
  CHECK(a.num_accepted_tokens == 3);
  CHECK(a.accepted_per_position == std::vector<int64_t>{2, 1, 0});
  CHECK(a.reached_per_position == std::vector<int64_t>{2, 1, 1});
  CHECK(a.accepted_lengths == std::vector<int64_t>{0, 1, 1, 0});
  CHECK(a.num_tokens == 5);
  CHECK(a.num_prompt_tokens == 14);
  CHECK(a.prefill_seconds == 2);
  CHECK(a.decode_seconds == 4);
  CHECK(a.draft_seconds == 5);
  CHECK(a.verify_seconds == 10);
  CHECK(a.time_to_first_token_seconds == 6);
}

TEST_CASE("Sampling parameters out of range name field, value and range") {
  CHECK_NOTHROW(SamplingParams().validate());
  const auto error_of = [](auto&& change) -> std::string {
    SamplingParams params;
    change(params);
    try {
      params.validate();
    } catch (const UsageError& error) {
      return error.what();
    }
    return "no error";
  };
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  CHECK_THAT(error_of([](auto& p) { p.temperature = -1; }),
             ContainsText("temperature is -1; expected 0 (greedy) or a number in [0.001, 100]"));
  CHECK(error_of([](auto& p) { p.temperature = kNaN; }) != "no error");
  CHECK(error_of([](auto& p) { p.temperature = kInfinity; }) != "no error");
  CHECK_THAT(error_of([](auto& p) { p.top_p = 0; }),
             ContainsText("top_p is 0; expected a number in (0, 1]"));
  CHECK(error_of([](auto& p) { p.top_p = 1.0001f; }) != "no error");
  CHECK(error_of([](auto& p) { p.top_p = kNaN; }) != "no error");
  CHECK(error_of([](auto& p) { p.top_k = -1; }) != "no error");
  CHECK(error_of([](auto& p) { p.min_p = -0.1f; }) != "no error");
  CHECK(error_of([](auto& p) { p.min_p = 1.1f; }) != "no error");
  CHECK(error_of([](auto& p) { p.repetition_penalty = 0; }) != "no error");
  CHECK(error_of([](auto& p) { p.repetition_penalty = kInfinity; }) != "no error");
  CHECK(error_of([](auto& p) { p.presence_penalty = 2.5f; }) != "no error");
  CHECK(error_of([](auto& p) { p.frequency_penalty = kNaN; }) != "no error");
  CHECK_THAT(error_of([](auto& p) { p.max_tokens = 0; }), ContainsText("max_tokens is 0"));
  CHECK(error_of([](auto& p) { p.logprobs = -2; }) != "no error");
  CHECK(error_of([](auto& p) { p.logprobs = SamplingParams::kMaxLogprobs + 1; }) != "no error");
  CHECK_THAT(error_of([](auto& p) {
               p.stop = {"a", ""};
             }),
             ContainsText("stop is an empty string"));
  CHECK_THAT(error_of([](auto& p) { p.stop = {"\xff"}; }), ContainsText("UTF-8"));
}
