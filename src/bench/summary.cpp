#include "bench/summary.h"

#include <algorithm>
#include <functional>
#include <map>

namespace tandem::bench {
namespace {

/// Collects columns and the statistics over them, and where each result goes.
class Table {
 public:
  explicit Table(const std::vector<std::vector<Pair>>& prompts) : prompts_(prompts) {}

  /// A column: the sum of `value` over the samples of each prompt.
  size_t column(const std::function<double(const Pair&)>& value) {
    std::vector<double>& sums = columns_.emplace_back();
    for (const auto& prompt : prompts_) {
      double sum = 0;
      for (const Pair& pair : prompt) sum += value(pair);
      sums.push_back(sum);
    }
    return columns_.size() - 1;
  }

  /// offset + numerator / denominator; `otherwise` where the denominator is 0.
  void ratio(Estimate& to, size_t numerator, size_t denominator, double offset = 0,
             double otherwise = 0) {
    statistics_.push_back([=](std::span<const double> sums) {
      const double below = sums[denominator];
      return below > 0 ? offset + sums[numerator] / below : otherwise;
    });
    targets_.push_back(&to);
  }

  /// (a / b) / (c / d); 0 where that is not defined.
  void ratio_of_ratios(Estimate& to, size_t a, size_t b, size_t c, size_t d) {
    statistics_.push_back([=](std::span<const double> sums) {
      const double below = sums[b] * sums[c];
      return below > 0 ? sums[a] * sums[d] / below : 0;
    });
    targets_.push_back(&to);
  }

  void estimate(const BootstrapOptions& options) const {
    const std::vector<Estimate> estimates = bootstrap(columns_, statistics_, options);
    for (size_t i = 0; i < targets_.size(); ++i) *targets_[i] = estimates[i];
  }

 private:
  const std::vector<std::vector<Pair>>& prompts_;
  std::vector<std::vector<double>> columns_;
  std::vector<Statistic> statistics_;
  std::vector<Estimate*> targets_;
};

template <typename T>
double at(const std::vector<T>& values, size_t i) {
  return i < values.size() ? static_cast<double>(values[i]) : 0.0;
}

std::vector<std::vector<Pair>> by_prompt(const std::vector<Pair>& pairs) {
  std::map<size_t, std::vector<Pair>> groups;
  for (const Pair& pair : pairs) groups[pair.sample->prompt].push_back(pair);
  std::vector<std::vector<Pair>> prompts;
  for (auto& group : groups) prompts.push_back(std::move(group.second));
  return prompts;
}

/// What `tokens_per_second` counts: every text's tokens but the first. Sums over turns have one
/// first token for each.
double later_tokens(const Sample& sample) {
  return static_cast<double>(std::max<int64_t>(sample.stats.num_tokens - sample.turns, 0));
}

void add_acceptance(Table& table, Summary& summary) {
  const auto stat = [&table](int64_t Stats::*field) {
    return table.column(
        [field](const Pair& pair) { return static_cast<double>(pair.sample->stats.*field); });
  };
  const size_t drafts = stat(&Stats::num_drafts);
  const size_t accepted = stat(&Stats::num_accepted_tokens);
  table.ratio(summary.acceptance_rate, accepted, stat(&Stats::num_draft_tokens));
  table.ratio(summary.mean_acceptance_length, accepted, drafts, 1, 1);

  const size_t positions = summary.totals.accepted_per_position.size();
  summary.acceptance_rate_per_position.resize(positions);
  summary.conditional_acceptance_rate_per_position.resize(positions);
  const bool measured = !summary.totals.expected_acceptance_per_position.empty();
  if (measured) summary.expected_acceptance_per_position.resize(positions);
  for (size_t i = 0; i < positions; ++i) {
    const size_t stood = table.column(
        [i](const Pair& pair) { return at(pair.sample->stats.accepted_per_position, i); });
    const size_t reached = table.column(
        [i](const Pair& pair) { return at(pair.sample->stats.reached_per_position, i); });
    table.ratio(summary.acceptance_rate_per_position[i], stood, drafts);
    table.ratio(summary.conditional_acceptance_rate_per_position[i], stood, reached);
    if (!measured) continue;
    const size_t common = table.column([i](const Pair& pair) {
      return at(pair.sample->stats.expected_acceptance_per_position, i);
    });
    table.ratio(summary.expected_acceptance_per_position[i], common, reached);
  }
  if (!measured) return;
  const auto sum_of = [](const auto& values) {
    double sum = 0;
    for (const auto value : values) sum += static_cast<double>(value);
    return sum;
  };
  const size_t common = table.column([&](const Pair& pair) {
    return sum_of(pair.sample->stats.expected_acceptance_per_position);
  });
  const size_t reached = table.column(
      [&](const Pair& pair) { return sum_of(pair.sample->stats.reached_per_position); });
  table.ratio(summary.expected_acceptance.emplace(), common, reached);
}

void add_speed(Table& table, Summary& summary, bool compare_text) {
  const size_t tokens = table.column([](const Pair& p) { return later_tokens(*p.sample); });
  const size_t seconds = table.column([](const Pair& p) { return p.sample->stats.decode_seconds; });
  const size_t plain_tokens = table.column([](const Pair& p) { return later_tokens(*p.plain); });
  const size_t plain_seconds =
      table.column([](const Pair& p) { return p.plain->stats.decode_seconds; });
  const size_t texts =
      table.column([](const Pair& p) { return static_cast<double>(p.sample->turns); });
  const size_t samples = table.column([](const Pair&) { return 1.0; });
  table.ratio(summary.tokens_per_second, tokens, seconds);
  table.ratio_of_ratios(summary.ratio_to_plain, tokens, seconds, plain_tokens, plain_seconds);
  table.ratio(summary.time_to_first_token_seconds, table.column([](const Pair& p) {
    return p.sample->stats.time_to_first_token_seconds;
  }),
              texts);
  if (!compare_text) return;
  const size_t same =
      table.column([](const Pair& p) { return p.sample->hash == p.plain->hash ? 1.0 : 0.0; });
  table.ratio(summary.same_text_rate.emplace(), same, samples);
}

}  // namespace

Summary summarize(const std::vector<Pair>& pairs, bool compare_text,
                  const BootstrapOptions& options) {
  Summary summary;
  const std::vector<std::vector<Pair>> prompts = by_prompt(pairs);
  summary.num_prompts = static_cast<int>(prompts.size());
  summary.num_samples = static_cast<int>(pairs.size());
  if (pairs.empty()) return summary;
  for (const Pair& pair : pairs) {
    summary.totals += pair.sample->stats;
    summary.num_texts += pair.sample->turns;
  }

  Table table(prompts);
  add_acceptance(table, summary);
  add_speed(table, summary, compare_text);
  table.estimate(options);

  const Stats& totals = summary.totals;
  summary.prefill_seconds = totals.prefill_seconds;
  summary.draft_seconds = totals.draft_seconds;
  summary.verify_seconds = totals.verify_seconds;
  const double whole = totals.time_to_first_token_seconds + totals.decode_seconds;
  summary.rest_seconds =
      std::max(whole - totals.prefill_seconds - totals.draft_seconds - totals.verify_seconds, 0.0);
  return summary;
}

}  // namespace tandem::bench
