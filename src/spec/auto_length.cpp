#include "spec/auto_length.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "tandem/error.h"

namespace tandem {
namespace {

/// What is assumed of a pair before anything is measured.
constexpr double kAssumedCostRatio = 0.1;
constexpr double kPriorAcceptance = 0.75;
/// Weights in observations: of the prior in the acceptance of all positions, and of that in the
/// acceptance of one.
constexpr double kPriorWeight = 4;
constexpr double kPooledWeight = 4;
/// What was seen in earlier texts, after one text more.
constexpr double kTextRemembered = 0.8;
/// Of the rounds between two trials, what is left of them for the next text.
constexpr int kProbeShareOfNextText = 4;
/// A round's weight in the estimate after one round more.
constexpr double kRemembered = 0.98;
/// The same for R, which is to be a mean over more than one passage of the text.
constexpr double kRateRemembered = 0.99;
/// Plain steps that the first guess of R counts for.
constexpr double kRateWeight = 16;
/// Plain rounds before the first trial after drafting stopped to pay, and the most.
constexpr int kFirstProbe = 12;
constexpr int kLastProbe = 384;
/// Plain steps that drafting may lose at the beginning of a text, and the most that it may lose of
/// what it has won.
constexpr double kFirstBalance = 2;
constexpr double kMostBalance = 40;
/// The share of the text's time that it may lose beyond that: enough for a trial now and then with
/// the rows that it must catch up, each of which costs a share itself, but never more than the
/// most. Where rows cost more, a draft that was given up is tried again with the next text.
constexpr double kLeastLossShare = 0.006, kMostLossShare = 0.012;
constexpr double kLossOverCatchUp = 1.25;
/// How many times too dear a table may be that is corrected, for drafting to be tried at all.
constexpr double kTableDoubt = 1.5;
/// The most that a plain step behind drafts counts for, in plain steps: beyond, it was held up.
constexpr double kMostAftermath = 2;
/// Rounds with drafts before the first look at what a plain step takes, and between two; and the
/// plain rounds of one, of which the first does not count.
constexpr int kFirstPlainLook = 24, kPlainLookEvery = 128, kPlainLookRounds = 3;
/// Standard deviations by which acceptance may be better than its estimate.
constexpr double kBenefitOfDoubt = 1;

}  // namespace

void AcceptanceEstimate::reset() {
  tried_.fill(0);
  stood_.fill(0);
  earlier_tried_ = earlier_stood_ = 0;
}

void AcceptanceEstimate::begin_text() {
  const auto sum = [](const auto& values) {
    return std::accumulate(values.begin(), values.end(), 0.0);
  };
  const double tried = kTextRemembered * (earlier_tried_ + sum(tried_));
  const double stood = kTextRemembered * (earlier_stood_ + sum(stood_));
  reset();
  earlier_tried_ = tried;
  earlier_stood_ = stood;
}

void AcceptanceEstimate::observe(int num_drafts, int num_accepted) {
  for (size_t i = 0; i < tried_.size(); ++i) {
    tried_[i] *= kRemembered;
    stood_[i] *= kRemembered;
    const int position = static_cast<int>(i);
    if (position >= num_drafts || position > num_accepted) continue;
    tried_[i] += 1;
    stood_[i] += position < num_accepted ? 1 : 0;
  }
}

std::array<double, kMaxSpeculativeTokens> AcceptanceEstimate::conditional(double deviations) const {
  // Of earlier texts the share counts, no more than what is assumed of a draft otherwise.
  const double prior =
      (kPriorWeight * kPriorAcceptance + earlier_stood_) / (kPriorWeight + earlier_tried_);
  double tried = kPriorWeight, stood = kPriorWeight * prior;
  for (size_t i = 0; i < tried_.size(); ++i) {
    tried += tried_[i];
    stood += stood_[i];
  }
  std::array<double, kMaxSpeculativeTokens> chances{};
  for (size_t i = 0; i < chances.size(); ++i) {
    const double weight = tried_[i] + kPooledWeight;
    const double chance = (stood_[i] + kPooledWeight * stood / tried) / weight;
    chances[i] = std::min(chance + deviations * std::sqrt(chance * (1 - chance) / weight), 1.0);
  }
  return chances;
}

AutoLength::AutoLength(int max_drafts) : max_drafts_(max_drafts) {
  set_costs(bandwidth_costs(kAssumedCostRatio, max_drafts));
}

void AutoLength::set_costs(const CostTable& costs, bool learn) {
  if (costs.max_drafts() < max_drafts_) {
    throw UsageError("the cost table ends at " + std::to_string(costs.max_drafts()) +
                     " drafts a round; " + std::to_string(max_drafts_) + " are allowed");
  }
  estimate_.set(costs, learn);
  until_plain_look_ = kFirstPlainLook;
  plain_look_left_ = 0;
  adopt_costs();
}

void AutoLength::adopt_costs() {
  costs_ = estimate_.costs();
  catch_up_cost_ = costs_.draft_catch_up_seconds / costs_.verify_seconds.front();
  loss_share_ = std::clamp(kLossOverCatchUp * catch_up_cost_, kLeastLossShare, kMostLossShare);
  const double doubt = estimate_.learns() ? kTableDoubt : 1;
  can_pay_ = false;
  for (int k = 1; k <= max_drafts_; ++k) {
    can_pay_ = can_pay_ || doubt * (k + 1) > costs_.round_cost(k);
  }
}

void AutoLength::start(int wanted) {
  wanted_ = wanted;
  const bool remembers = estimate_.learns();
  if (remembers) {
    acceptance_.begin_text();
  } else {
    acceptance_.reset();
  }
  steps_ = kRateWeight;
  tokens_ = 0;
  balance_ = kFirstBalance;
  plain_rounds_ = launched_ = read_ = probe_round_ = 0;
  probe_interval_ =
      remembers ? std::max(probe_interval_ / kProbeShareOfNextText, kFirstProbe) : kFirstProbe;
  if (max_drafts_ > 0) {
    tokens_ = kRateWeight * std::max(1.0, best_speedup(costs_, acceptance_.conditional()).speedup);
  }
}

double AutoLength::tokens_per_step() const {
  const double now = best_speedup(costs_, acceptance_.conditional()).speedup;
  return std::max(1.0, std::min(now, tokens_ / steps_));
}

int AutoLength::best(int lowest, double tokens_per_step, double deviations) const {
  const auto chances = acceptance_.conditional(deviations);
  int chosen = lowest;
  double most = 0;
  double tokens = 1, stands = 1;
  for (int k = 0; k <= max_drafts_; ++k) {
    if (k > 0) tokens += stands *= chances[static_cast<size_t>(k) - 1];
    const double gain = tokens - tokens_per_step * costs_.round_cost(k);
    if (k < lowest || (k > lowest && gain <= most)) continue;
    chosen = k;
    most = gain;
  }
  return chosen;
}

bool AutoLength::may_try(int num_drafts) const {
  if (read_ < probe_round_) return false;
  const bool unsure = best(0, 1.0, kBenefitOfDoubt) > 0;
  if (!unsure && plain_rounds_ < probe_interval_) return false;
  return costs_.round_cost(num_drafts) - 1 + catch_up_cost_ * plain_rounds_ <= balance_;
}

bool AutoLength::look_at_plain() {
  if (!estimate_.learns()) return false;
  if (plain_look_left_ == 0) {
    if (--until_plain_look_ > 0) return false;
    until_plain_look_ = kPlainLookEvery;
    plain_look_left_ = kPlainLookRounds;
  }
  --plain_look_left_;
  return true;
}

int AutoLength::next() {
  ++launched_;
  if (wanted_ != kAutoDraftLength) return wanted_;
  if (max_drafts_ == 0 || !can_pay_) return 0;
  const int drafts = best(0, tokens_per_step());
  if (drafts > 0) return look_at_plain() ? 0 : drafts;
  const int trial = best(1, 1.0);
  if (!may_try(trial)) return 0;
  probe_round_ = launched_;
  return trial;
}

/// By the table; but where costs are learnt, the first plain steps behind drafts, which find the
/// main model's weights out of the cache, count for what they took.
double AutoLength::steps_of(const RoundOutcome& outcome, int drafts) const {
  const double expected =
      costs_.round_cost(drafts) + (drafts > 0 ? catch_up_cost_ * plain_rounds_ : 0);
  const double plain = estimate_.plain_seconds();
  if (drafts > 0 || plain_rounds_ > 0 || plain <= 0) return expected;
  return std::clamp((outcome.draft_seconds + outcome.verify_seconds) / plain, expected,
                    kMostAftermath * expected);
}

void AutoLength::observe(const RoundOutcome& outcome) {
  ++read_;
  const int drafts = std::clamp(outcome.num_drafts, 0, max_drafts_);
  const double tokens = outcome.num_accepted + 1.0;
  if (estimate_.learns() && wanted_ == kAutoDraftLength) {
    estimate_.observe(outcome, plain_rounds_);
    adopt_costs();
  }
  const double steps = steps_of(outcome, drafts);
  if (drafts > 0) {
    acceptance_.observe(drafts, outcome.num_accepted);
    const bool failed = outcome.num_accepted == 0;
    if (plain_rounds_ >= probe_interval_) {
      probe_interval_ = failed ? std::min(2 * probe_interval_, kLastProbe) : kFirstProbe;
    }
    plain_rounds_ = 0;
  } else {
    ++plain_rounds_;
  }
  balance_ = std::min(balance_ + tokens - steps + loss_share_ * steps, kMostBalance);
  tokens_ = kRateRemembered * tokens_ + tokens;
  steps_ = kRateRemembered * steps_ + steps;
}

}  // namespace tandem
