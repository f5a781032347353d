// Statistics, data sets and settings of the benchmark.

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "bench/bootstrap.h"
#include "bench/dataset.h"
#include "bench/report.h"
#include "bench/run.h"
#include "bench/summary.h"
#include "support/catch.h"
#include "tandem/error.h"

using namespace tandem;
using namespace tandem::bench;

namespace {

double ratio(std::span<const double> sums) { return sums[0] / sums[1]; }

/// Accepted and drafted tokens of prompts whose acceptance rates differ: mean 0.6.
std::vector<std::vector<double>> random_prompts(int prompts, std::mt19937_64& random) {
  std::vector<std::vector<double>> columns(2);
  std::uniform_real_distribution<double> rate(0.4, 0.8);
  for (int i = 0; i < prompts; ++i) {
    constexpr int kDrafted = 60;
    std::binomial_distribution<int> accepted(kDrafted, rate(random));
    columns[0].push_back(accepted(random));
    columns[1].push_back(kDrafted);
  }
  return columns;
}

std::string message_of(const std::string& text, bool skip_bad = false) {
  try {
    parse_dataset(text, "data.jsonl", skip_bad);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no error";
}

Stats stats_of(int rounds, int drafted, int accepted, double seconds) {
  Stats stats;
  for (int i = 0; i < rounds; ++i) stats.add_round(drafted, accepted, accepted, 0.1, 0.2);
  stats.num_tokens = int64_t{rounds} * (accepted + 1);
  stats.decode_seconds = seconds;
  stats.time_to_first_token_seconds = 0.5;
  stats.prefill_seconds = 0.2;
  return stats;
}

}  // namespace

TEST_CASE("Quantiles are interpolated", "[bench]") {
  const std::vector<double> values = {1, 2, 4, 8};
  CHECK(quantile(values, 0) == 1);
  CHECK(quantile(values, 0.5) == 3);
  CHECK(quantile(values, 1) == 8);
}

TEST_CASE("Confidence intervals agree with a bootstrap of its own and with the delta method",
          "[bench]") {
  std::mt19937_64 random(11);
  const auto columns = random_prompts(80, random);
  const Estimate estimate = bootstrap(columns, std::vector<Statistic>{ratio}).front();
  REQUIRE(estimate.interval);
  const auto n = columns[0].size();

  // The same statistic resampled with the standard library's generator.
  std::vector<double> drawn;
  std::uniform_int_distribution<size_t> pick(0, n - 1);
  for (int resample = 0; resample < 20000; ++resample) {
    double accepted = 0, drafted = 0;
    for (size_t i = 0; i < n; ++i) {
      const size_t prompt = pick(random);
      accepted += columns[0][prompt];
      drafted += columns[1][prompt];
    }
    drawn.push_back(accepted / drafted);
  }
  std::sort(drawn.begin(), drawn.end());
  const double low = drawn[500], high = drawn[19500];
  // Quantiles of 2000 resamples scatter by about 3 % of the interval's width.
  const double tolerance = 0.15 * (high - low);
  CHECK(std::abs(estimate.interval->first - low) < tolerance);
  CHECK(std::abs(estimate.interval->second - high) < tolerance);

  // Normal approximation of a ratio of sums.
  double squares = 0, drafted = 0;
  for (size_t i = 0; i < n; ++i) {
    const double residual = columns[0][i] - estimate.value * columns[1][i];
    squares += residual * residual;
    drafted += columns[1][i];
  }
  const double half = 1.96 * std::sqrt(squares) / drafted;
  CHECK(estimate.interval->second - estimate.interval->first == Approx(2 * half).epsilon(0.12));
}

TEST_CASE("Confidence intervals cover the truth about as often as they say", "[bench]") {
  std::mt19937_64 random(5);
  constexpr int kTrials = 500, kPrompts = 50;
  BootstrapOptions options;
  options.resamples = 400;
  int covered = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const auto columns = random_prompts(kPrompts, random);
    const Estimate estimate = bootstrap(columns, std::vector<Statistic>{ratio}, options).front();
    covered += estimate.interval->first <= 0.6 && 0.6 <= estimate.interval->second ? 1 : 0;
  }
  // 95 % of 500 is 475 with a standard deviation of 4.9; a percentile interval of 50 prompts covers
  // about 94 %.
  CHECK(covered >= 455);
  CHECK(covered <= 490);
}

TEST_CASE("A bootstrap repeats itself, and needs two prompts", "[bench]") {
  std::mt19937_64 random(7);
  const auto columns = random_prompts(20, random);
  const std::vector<Statistic> statistics = {ratio};
  const auto a = bootstrap(columns, statistics).front();
  const auto b = bootstrap(columns, statistics).front();
  CHECK(*a.interval == *b.interval);
  BootstrapOptions other;
  other.seed = 1;
  CHECK(*bootstrap(columns, statistics, other).front().interval != *a.interval);
  CHECK_FALSE(bootstrap({{3}, {4}}, statistics).front().interval);
  CHECK(bootstrap({{3}, {4}}, statistics).front().value == 0.75);
}

TEST_CASE("A summary divides sums, beside plain decoding of the same prompts", "[bench]") {
  Sample a, b, plain_a, plain_b;
  a.prompt = plain_a.prompt = 0;
  b.prompt = plain_b.prompt = 1;
  a.stats = stats_of(10, 4, 2, 2.5);  // 30 tokens
  b.stats = stats_of(20, 4, 1, 4.5);  // 40 tokens
  plain_a.stats = stats_of(30, 0, 0, 7);
  plain_b.stats = stats_of(40, 0, 0, 9);
  a.turns = b.turns = plain_a.turns = plain_b.turns = 1;
  a.hash = plain_a.hash = 1;
  b.hash = 2;
  const Summary summary = summarize({{&a, &plain_a}, {&b, &plain_b}}, true);
  CHECK(summary.num_prompts == 2);
  CHECK(summary.acceptance_rate.value == Approx(40.0 / 120));
  CHECK(summary.mean_acceptance_length.value == Approx(1 + 40.0 / 30));
  REQUIRE(summary.acceptance_rate_per_position.size() == 4);
  CHECK(summary.acceptance_rate_per_position[1].value == Approx(10.0 / 30));
  CHECK(summary.conditional_acceptance_rate_per_position[1].value == Approx(10.0 / 30));
  CHECK(summary.conditional_acceptance_rate_per_position[2].value == 0);
  CHECK(summary.tokens_per_second.value == Approx((29.0 + 39) / 7));
  CHECK(summary.ratio_to_plain.value == Approx((68.0 / 7) / (68.0 / 16)));
  CHECK(summary.time_to_first_token_seconds.value == Approx(0.5));
  CHECK(summary.same_text_rate->value == 0.5);
  CHECK(summary.totals.accepted_lengths == std::vector<int64_t>{0, 20, 10, 0, 0});
  CHECK(summary.draft_seconds == Approx(3));
  CHECK(summary.verify_seconds == Approx(6));
  // 8 s in all, of which 0.4 prefill and 9 rounds' time: the rest is never below zero.
  CHECK(summary.rest_seconds == 0);
  CHECK_FALSE(summary.expected_acceptance);
  CHECK_FALSE(summarize({{&a, &plain_a}}, false).same_text_rate);
}

TEST_CASE("Every format of a data set is recognised", "[bench]") {
  const auto one = [](const std::string& line) {
    const Dataset dataset = parse_dataset(line + "\n\n", "data.jsonl", false);
    REQUIRE(dataset.prompts.size() == 1);
    return std::make_pair(dataset.format, dataset.prompts.front());
  };
  const auto [spec, spec_prompt] =
      one(R"({"question_id": 81, "category": "writing", "turns": ["a", "b"]})");
  CHECK(spec == "spec_bench");
  CHECK(spec_prompt.id == "81");
  CHECK(spec_prompt.category == "writing");
  CHECK(spec_prompt.turns == std::vector<std::string>{"a", "b"});
  const auto [human, human_prompt] = one(R"({"task_id": "HumanEval/0", "prompt": "def f():"})");
  CHECK(human == "humaneval");
  CHECK(human_prompt.id == "HumanEval/0");
  CHECK(one(R"({"question": "How many?", "answer": "2"})").first == "gsm8k");
  const auto [share, share_prompt] =
      one(R"({"id": "x", "conversations": [{"from": "human", "value": "1"}, )"
          R"({"from": "gpt", "value": "2"}, {"from": "human", "value": "3"}]})");
  CHECK(share == "sharegpt");
  CHECK(share_prompt.turns == std::vector<std::string>{"1", "3"});
  CHECK(one(R"({"prompt": "x", "category": "c"})").second.category == "c");
  CHECK(one(R"({"prompt": "x"})").second.id == "line 1");
}

TEST_CASE("Malformed lines are named, and left out when asked", "[bench]") {
  const std::string good = "{\"prompt\": \"x\"}\n";
  CHECK_THAT(message_of(good + "{\"prompt\": \n"), ContainsText("data.jsonl:2: no valid JSON"));
  CHECK_THAT(message_of(good + "[1]\n"), ContainsText("data.jsonl:2: a list instead of an object"));
  CHECK_THAT(message_of(good + "{\"prompt\": 3}\n"),
             ContainsText("data.jsonl:2: 'prompt' is no string"));
  CHECK_THAT(message_of(good + "{\"prompt\": \"\"}\n"), ContainsText("'prompt' is empty"));
  CHECK_THAT(message_of(good + "{\"text\": \"y\"}\n"),
             ContainsText("data.jsonl:2: 'prompt' is missing"));
  CHECK_THAT(message_of(good + "{\"prompt\": \"\xff\"}\n"),
             ContainsText("data.jsonl:2: no valid JSON"));
  CHECK_THAT(message_of("{\"turns\": [], \"category\": \"c\", \"question_id\": 1}"),
             ContainsText("'turns' is empty"));
  CHECK_THAT(message_of("{\"conversations\": [{\"from\": \"gpt\", \"value\": \"x\"}]}"),
             ContainsText("no message of a person"));
  CHECK_THAT(message_of("{\"text\": \"y\"}\n"), ContainsText("data.jsonl:1:") &&
                                                    ContainsText("'text'") &&
                                                    ContainsText("no known format"));
  CHECK_THAT(message_of(""), ContainsText("data.jsonl: the data set holds no prompt"));
  CHECK_THAT(message_of("{\n", true), ContainsText("every line is malformed"));

  const Dataset skipped = parse_dataset(good + "{\n" + good, "data.jsonl", true);
  CHECK(skipped.prompts.size() == 2);
  CHECK(skipped.skipped == std::vector<std::string>{"data.jsonl:2: no valid JSON"});
}

TEST_CASE("A limit takes of every category", "[bench]") {
  std::vector<Prompt> prompts;
  for (const char* category : {"a", "a", "a", "b", "b", "c"}) {
    prompts.push_back({std::to_string(prompts.size()), category, {"x"}});
  }
  const auto ids = [&](int limit) {
    std::string text;
    for (const Prompt& prompt : limit_prompts(prompts, limit)) text += prompt.id;
    return text;
  };
  CHECK(ids(3) == "035");
  CHECK(ids(5) == "01345");
  CHECK(ids(0) == "012345");
  CHECK(ids(9) == "012345");
}

TEST_CASE("The bundled prompts are many and of several categories", "[bench]") {
  const Dataset dataset = bundled_dataset();
  CHECK(dataset.prompts.size() >= 60);
  std::set<std::string> categories, texts;
  for (const Prompt& prompt : dataset.prompts) {
    categories.insert(prompt.category);
    texts.insert(prompt.turns.front());
  }
  CHECK(categories.size() >= 6);
  CHECK(texts.size() == dataset.prompts.size());
}

TEST_CASE("Every setting is first, second, … about equally often", "[bench]") {
  constexpr size_t kSettings = 4;
  std::vector<int> first(kSettings, 0);
  for (size_t prompt = 0; prompt < 8; ++prompt) {
    auto order = interleaved_order(prompt, 0, kSettings);
    ++first[order.front()];
    std::sort(order.begin(), order.end());
    CHECK(order == std::vector<size_t>{0, 1, 2, 3});
  }
  CHECK(first == std::vector<int>{2, 2, 2, 2});
  // Each runs behind either neighbour: repeats go the other way round, as do further prompts.
  CHECK(interleaved_order(1, 0, kSettings) == std::vector<size_t>{1, 2, 3, 0});
  CHECK(interleaved_order(0, 1, kSettings) == std::vector<size_t>{0, 3, 2, 1});
  CHECK(interleaved_order(kSettings, 0, kSettings) == std::vector<size_t>{3, 2, 1, 0});
}
