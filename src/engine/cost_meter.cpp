#include "engine/cost_meter.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include "spec/cost_estimate.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kBudgetSeconds = 0.5;
constexpr int kLeastPasses = 2;
constexpr int kMostPasses = 40;
/// Rounds of one K > 0 in a row; the first of them begins a text and counts, as does the first
/// plain one, only where no other drafts.
constexpr int kRoundsPerPass = 4;
/// Plain rounds in a row, of which those that find the weights back in the cache count.
constexpr int kPlainRoundsPerPass = 2 * CostEstimate::kUnsettledRounds;
/// Tokens in front of the rounds that are timed.
constexpr int kPromptTokens = 192;
/// Plain rounds before the one that shows what catching up costs.
constexpr int kCatchUpRounds = 16;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The non-decreasing sequence nearest to `values`: neighbours in the wrong order share their mean.
void make_monotone(std::vector<double>& values) {
  struct Pool {
    double sum;
    int count;
    double mean() const { return sum / count; }
  };
  std::vector<Pool> pools;
  for (const double value : values) {
    pools.push_back({value, 1});
    while (pools.size() > 1 && pools[pools.size() - 2].mean() > pools.back().mean()) {
      const Pool last = pools.back();
      pools.pop_back();
      pools.back() = {pools.back().sum + last.sum, pools.back().count + last.count};
    }
  }
  values.clear();
  for (const Pool& pool : pools) values.insert(values.end(), pool.count, pool.mean());
}

class CostMeter {
 public:
  CostMeter(SpeculativeDecoder& decoder, int max_positions, int max_drafts)
      : decoder_(decoder),
        prompt_(static_cast<size_t>(std::clamp(max_positions / 2, 1, kPromptTokens)), 0),
        times_(static_cast<size_t>(max_drafts) + 1) {}

  CostTable measure(const std::function<bool()>& cancelled) {
    const Clock::time_point begin = Clock::now();
    decoder_.start(prompt_, settings_of(0));
    pass(cancelled);  // the first one captures graphs and touches weights
    for (Times& times : times_) times = {};
    catch_up_.clear();
    for (int done = 0; done < kMostPasses; ++done) {
      if (done >= kLeastPasses && seconds_since(begin) > kBudgetSeconds) break;
      if (cancelled && cancelled()) break;
      pass(cancelled);
    }
    return table();
  }

 private:
  struct Times {
    std::vector<double> draft, verify;  ///< of rounds in the midst of a text
    std::vector<double> first_draft, first_verify;
  };

  static DecodeSettings settings_of(int num_drafts) {
    DecodeSettings settings;
    settings.num_speculative_tokens = num_drafts;
    return settings;
  }

  void pass(const std::function<bool()>& cancelled) {
    plain_rounds();
    for (size_t k = 1; k < times_.size(); ++k) {
      if (cancelled && cancelled()) return;
      rounds(static_cast<int>(k));
    }
    if (times_.size() > 1) catch_up();
  }

  void plain_rounds() {
    decoder_.restart(settings_of(0));
    std::vector<double> seconds;
    while (std::ssize(seconds) < kPlainRoundsPerPass && decoder_.remaining_positions() > 0) {
      const Clock::time_point begin = Clock::now();
      decoder_.round(decoder_.remaining_positions());
      seconds.push_back(seconds_since(begin));
    }
    if (!seconds.empty()) times_[0].first_verify.push_back(seconds.front());
    const auto settled = seconds.begin() + std::ssize(seconds) / 2;
    times_[0].verify.insert(times_[0].verify.end(), settled, seconds.end());
  }

  void rounds(int num_drafts) {
    decoder_.restart(settings_of(num_drafts));
    Times& times = times_[static_cast<size_t>(num_drafts)];
    for (int i = 0; i < kRoundsPerPass && decoder_.remaining_positions() > num_drafts; ++i) {
      const Clock::time_point begin = Clock::now();
      const RoundResult& round = decoder_.round(decoder_.remaining_positions());
      const double seconds = seconds_since(begin);
      if (round.num_drafts != num_drafts) continue;
      const double draft = std::min(round.draft_seconds, seconds);
      (i == 0 ? times.first_draft : times.draft).push_back(draft);
      (i == 0 ? times.first_verify : times.verify).push_back(seconds - draft);
    }
  }

  /// Rounds that may yield one token alone draft nothing; the next one finds their rows missing.
  void catch_up() {
    decoder_.restart(settings_of(1));
    int missing = 0;
    while (missing < kCatchUpRounds && decoder_.remaining_positions() > 1) {
      missing = decoder_.round(1).num_drafts == 0 ? missing + 1 : 0;
    }
    if (missing == 0 || decoder_.remaining_positions() < 2) return;
    const RoundResult& round = decoder_.round(decoder_.remaining_positions());
    if (round.num_drafts == 0) return;
    if (times_[1].draft.empty()) return;
    const double usual = median(times_[1].draft);
    catch_up_.push_back(std::max(round.draft_seconds - usual, 0.0) / missing);
  }

  CostTable table() const {
    // A drafter that looks tokens up finds some in the prompt, and seldom in what follows it.
    const bool first = std::any_of(times_.begin(), times_.end(), [](const Times& times) {
      return times.verify.size() < times.first_verify.size();
    });
    CostTable costs;
    std::vector<double> drafting;
    for (const Times& times : times_) {
      const double verify = median(first ? times.first_verify : times.verify);
      if (verify <= 0) {  // nothing was drafted, or it does not fit the context
        costs.verify_seconds.push_back(costs.verify_seconds.empty() ? 1.0
                                                                    : costs.verify_seconds.back());
        continue;
      }
      costs.verify_seconds.push_back(verify);
      drafting.push_back(median(first ? times.first_draft : times.draft));
    }
    make_monotone(costs.verify_seconds);
    if (drafting.size() > 1) costs.draft_first_seconds = drafting[1];
    costs.draft_step_seconds = costs.draft_first_seconds;
    if (drafting.size() > 2) {
      const auto steps = static_cast<double>(drafting.size() - 2);
      costs.draft_step_seconds = std::max((drafting.back() - drafting[1]) / steps, 0.0);
    }
    costs.draft_catch_up_seconds = median(catch_up_);
    return costs;
  }

  SpeculativeDecoder& decoder_;
  std::vector<int32_t> prompt_;
  std::vector<Times> times_;  ///< [K]
  std::vector<double> catch_up_;
};

}  // namespace

CostTable measure_costs(SpeculativeDecoder& decoder, int max_positions, int max_drafts,
                        const std::function<bool()>& cancelled) {
  return CostMeter(decoder, max_positions, max_drafts).measure(cancelled);
}

}  // namespace tandem
