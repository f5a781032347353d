#include "bench/report.h"

#include <algorithm>

namespace tandem::bench {
namespace {

/// The pairs of one setting over the samples of a category; every category when it is empty.
std::vector<Pair> pairs_of(const PairUnderTest& pair, size_t setting,
                           const std::vector<Prompt>& prompts, const std::vector<Sample>& samples,
                           const std::string& category) {
  const size_t plain_setting = pair.plain_of(setting);
  std::map<std::pair<size_t, int>, const Sample*> plain;
  for (const Sample& sample : samples) {
    if (sample.setting == plain_setting) plain[{sample.prompt, sample.repeat}] = &sample;
  }
  std::vector<Pair> pairs;
  for (const Sample& sample : samples) {
    if (sample.setting != setting) continue;
    if (!category.empty() && prompts[sample.prompt].category != category) continue;
    const auto found = plain.find({sample.prompt, sample.repeat});
    if (found != plain.end()) pairs.push_back({&sample, found->second});
  }
  return pairs;
}

}  // namespace

const SettingReport* PairReport::plain_of(const Setting& setting) const {
  const auto found = std::find_if(settings.begin(), settings.end(), [&](const SettingReport& one) {
    return one.setting.is_plain() && one.setting.temperature == setting.temperature;
  });
  return found == settings.end() || found->all.num_samples == 0 ? nullptr : &*found;
}

PairReport pair_report(const PairUnderTest& pair, const EngineInfo& info,
                       const std::vector<Prompt>& prompts, const std::vector<Sample>& samples,
                       bool compare_text, const BootstrapOptions& options) {
  PairReport report;
  report.name = pair.name;
  report.info = info;
  report.timed_costs = round_costs(pair, samples);
  for (size_t setting = 0; setting < pair.settings.size(); ++setting) {
    if (pair.settings[setting].times_rounds) continue;
    SettingReport& one = report.settings.emplace_back();
    one.setting = pair.settings[setting];
    one.all = summarize(pairs_of(pair, setting, prompts, samples, ""), compare_text, options);
    for (const Prompt& prompt : prompts) {
      if (one.categories.contains(prompt.category)) continue;
      const std::vector<Pair> pairs = pairs_of(pair, setting, prompts, samples, prompt.category);
      if (!pairs.empty()) one.categories[prompt.category] = summarize(pairs, compare_text, options);
    }
  }
  return report;
}

const std::vector<Definition>& definitions() {
  static const std::vector<Definition> all = {
      {"num_rounds", "passes of the main model after the prefill"},
      {"num_drafts", "rounds in which at least one token was drafted"},
      {"num_draft_tokens", "drafted tokens"},
      {"num_accepted_tokens",
       "drafted tokens that became part of the text; what lies behind its end does not count"},
      {"acceptance_rate", "num_accepted_tokens / num_draft_tokens"},
      {"mean_acceptance_length",
       "1 + num_accepted_tokens / num_drafts: the extra token of each round counts"},
      {"acceptance_rate_per_position",
       "[i]: share of num_drafts in which draft position i stood (unconditional)"},
      {"conditional_acceptance_rate_per_position",
       "[i]: share of the rounds that drafted position i and in which all before it stood, in "
       "which "
       "it stood too; positions behind the end of a text do not count"},
      {"accepted_lengths", "[n]: drafting rounds of which exactly n drafted tokens stood"},
      {"expected_acceptance",
       "mean of the sum over all tokens of min(p, q), p the main model's and q the draft's "
       "distribution, over the positions that the conditional rate counts; null where there are no "
       "probabilities (greedy decoding)"},
      {"tokens_per_second",
       "(tokens - 1) / decode_seconds, summed over the texts before dividing: the first token is "
       "the "
       "prefill's"},
      {"ratio_to_plain",
       "tokens_per_second over that of plain decoding of the same prompts in the same run, in "
       "turns"},
      {"time_to_first_token_seconds", "mean over the texts, from the request to its first token"},
      {"prefill_seconds", "both models over the prompts"},
      {"draft_seconds", "inside rounds: drafting"},
      {"verify_seconds", "inside rounds: the main model's pass and the acceptance"},
      {"rest_seconds", "of the whole time, what is neither prefill nor draft nor verification"},
      {"predicted_ratio_to_plain",
       "E / T in place of ratio_to_plain: E the mean acceptance length (where K was not measured, "
       "from the conditional acceptance by position of the largest K that was), T the cost of a "
       "round over a plain step from cost_table; the rounds that give the table are timed in turns "
       "with the settings, on every so many prompts, with made-up acceptance"},
      {"difference", "predicted_ratio_to_plain as measured / measured_ratio_to_plain - 1"},
      {"same_text_rate",
       "share of the samples whose tokens were those of plain decoding; promised where "
       "same_text_promised says so (greedy, coupled), elsewhere only the distribution is the same"},
      {"interval",
       "low and high are the ends of the 95 % confidence interval, by percentile bootstrap over "
       "prompts; null with fewer than two prompts"},
  };
  return all;
}

}  // namespace tandem::bench
