#include "bench/round_costs.h"

#include <algorithm>
#include <optional>

namespace tandem::bench {
namespace {

/// Timing settings run for one prompt in so many that the others run this many times as often.
constexpr size_t kOthersOverTiming = 3;

bool same_rule(const Setting& a, const Setting& b) {
  return a.temperature == b.temperature && a.rejection_sample_method == b.rejection_sample_method;
}

/// Seconds of a round and of its drafting, means over all rounds of a setting but each text's
/// first, whose time `decode_seconds` leaves out.
struct RoundTime {
  double round = 0;
  double draft = 0;
};

std::optional<RoundTime> mean_time(const std::vector<Sample>& samples, size_t setting) {
  double seconds = 0, draft_seconds = 0;
  int64_t rounds = 0, drafts = 0;
  for (const Sample& sample : samples) {
    if (sample.setting != setting) continue;
    seconds += sample.stats.decode_seconds;
    rounds += sample.stats.num_rounds - sample.turns;
    draft_seconds += sample.stats.draft_seconds;
    drafts += sample.stats.num_drafts;
  }
  if (rounds <= 0 || seconds <= 0) return std::nullopt;
  RoundTime time;
  time.round = seconds / static_cast<double>(rounds);
  if (drafts > 0) time.draft = std::min(draft_seconds / static_cast<double>(drafts), time.round);
  return time;
}

/// Tables know drafting as a first pass and equal steps; verification takes the rest, so that whole
/// rounds cost what they were timed at.
CostTable table_of(const std::vector<RoundTime>& times) {
  CostTable costs;
  const auto steps = static_cast<double>(times.size()) - 2;
  costs.draft_first_seconds = times[1].draft;
  costs.draft_step_seconds =
      steps > 0 ? std::max((times.back().draft - times[1].draft) / steps, 0.0) : times[1].draft;
  for (size_t k = 0; k < times.size(); ++k) {
    const double drafting = costs.draft_seconds(static_cast<int>(k));
    costs.verify_seconds.push_back(std::max(times[k].round - drafting, 0.0));
  }
  return costs;
}

}  // namespace

std::vector<Setting> timing_settings(const std::vector<Setting>& settings, int max_drafts) {
  std::vector<Setting> timing;
  const auto add = [&](Setting setting) {
    setting.times_rounds = true;
    if (std::find(timing.begin(), timing.end(), setting) == timing.end()) {
      timing.push_back(setting);
    }
  };
  for (const Setting& setting : settings) {
    if (setting.is_plain()) continue;
    add({0, setting.temperature, ""});
    for (int k = 1; k <= max_drafts; ++k) {
      add({k, setting.temperature, setting.rejection_sample_method});
    }
  }
  return timing;
}

bool times_rounds_at(size_t number, const std::vector<Setting>& settings) {
  const auto timing = static_cast<size_t>(std::count_if(
      settings.begin(), settings.end(), [](const Setting& one) { return one.times_rounds; }));
  const size_t others = std::max<size_t>(settings.size() - timing, 1);
  const size_t every = (kOthersOverTiming * timing + others - 1) / others;
  return timing > 0 && number % std::max<size_t>(every, 1) == 0;
}

std::vector<RoundCosts> round_costs(const PairUnderTest& pair, const std::vector<Sample>& samples) {
  std::vector<RoundCosts> all;
  const auto time_of = [&](const Setting& setting) -> std::optional<RoundTime> {
    const auto found = std::find(pair.settings.begin(), pair.settings.end(), setting);
    if (found == pair.settings.end()) return std::nullopt;
    return mean_time(samples, static_cast<size_t>(found - pair.settings.begin()));
  };
  for (const Setting& one : pair.settings) {
    if (!one.times_rounds || one.num_speculative_tokens != 1) continue;
    Setting setting{0, one.temperature, "", true};
    std::vector<RoundTime> times;
    for (auto time = time_of(setting); time; time = time_of(setting)) {
      times.push_back(*time);
      setting.rejection_sample_method = one.rejection_sample_method;
      ++setting.num_speculative_tokens;
    }
    const auto wanted = std::count_if(
        pair.settings.begin(), pair.settings.end(),
        [&](const Setting& other) { return other.times_rounds && same_rule(other, one); });
    if (std::cmp_less_equal(times.size(), wanted)) continue;
    all.push_back({one.temperature, one.rejection_sample_method, table_of(times)});
  }
  return all;
}

}  // namespace tandem::bench
