#include "spec/auto_length.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "tandem/error.h"

namespace tandem {
namespace {

/// What a draft pass is assumed to cost before anything is measured, in plain steps.
constexpr double kAssumedCostRatio = 0.1;
/// Of the rounds between two trials, what is left of them for the next text.
constexpr int kProbeShareOfNextText = 4;
/// A round's weight in R after one round more: R is to be a mean over more than one passage.
constexpr double kRateRemembered = 0.99;
/// Plain steps that the first guess of R counts for.
constexpr double kRateWeight = 16;
/// Plain rounds before the first trial after drafting stopped to pay, and the most.
constexpr int kFirstProbe = 12;
constexpr int kLastProbe = 128;
/// Plain steps that drafting may lose at the beginning of a text, besides the most of what it has
/// won in the last one; and the most that it may lose of what it has won.
constexpr double kFirstBalance = 2.45, kMostOfLastText = 10;
/// The same where no draft stood in the last text.
constexpr double kBalanceAfterFailure = 1;
constexpr double kMostBalance = 40;
/// The share of the text's time that it may lose beyond that: enough for a trial now and then with
/// the rows that it must catch up, each of which costs a share itself, but never more than the
/// most. Where rows cost more, a draft that was given up is tried again with the next text.
constexpr double kLeastLossShare = 0.006, kMostLossShare = 0.012;
constexpr double kLossOverCatchUp = 1.25;
/// Rounds with drafts, none of which has stood, behind which a text has no more of them but trials.
constexpr int kFailuresToGiveUp = 12;
/// How many times too dear a table may be that is corrected, for drafting to be tried at all.
constexpr double kTableDoubt = 1.5;
/// The most that a plain step behind drafts counts for, in plain steps: beyond, it was held up.
constexpr double kMostAftermath = 2;
/// Plain rounds of a look at what a plain step takes, of which the first do not count; what these
/// take longer, in plain steps; and the share of the time of rounds with drafts that looks may
/// cost.
constexpr int kPlainLookRounds = CostEstimate::kUnsettledRounds + 8;
constexpr double kColdStep = 0.3, kPlainLookShare = 0.005;
/// Standard deviations by which acceptance may be better than its estimate: where drafting is given
/// up, and for the token behind a full acceptance.
constexpr double kBenefitOfDoubt = 1, kBenefitOfNext = 0.5;

/// Whether what the round took tells what rounds cost.
bool times_count(const RoundOutcome& outcome) {
  return !outcome.captured && !outcome.beside_prompt;
}

}  // namespace

AutoLength::AutoLength(int max_drafts) : max_drafts_(max_drafts) {
  set_costs(bandwidth_costs(kAssumedCostRatio, max_drafts));
}

void AutoLength::set_costs(const CostTable& costs, bool learn) {
  if (costs.max_drafts() < max_drafts_) {
    throw UsageError("the cost table ends at " + std::to_string(costs.max_drafts()) +
                     " drafts a round; " + std::to_string(max_drafts_) + " are allowed");
  }
  estimate_.set(costs, learn);
  look_credit_ = 0;
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
    yield_.begin_text();
  } else {
    acceptance_.reset();
    yield_.reset();
    won_ = 0;
  }
  if (wanted == kAutoDraftLength) {
    const bool failed = remembers && failures_ > 0 && !some_stood_;
    balance_ =
        (failed ? kBalanceAfterFailure : kFirstBalance) + std::clamp(won_, 0.0, kMostOfLastText);
    probe_interval_ =
        remembers ? std::max(probe_interval_ / kProbeShareOfNextText, kFirstProbe) : kFirstProbe;
    won_ = 0;
    some_stood_ = false;
    failures_ = 0;
  }
  at_risk_.clear();
  plain_rounds_ = launched_ = read_ = probe_round_ = 0;
  steps_ = kRateWeight;
  tokens_ = kRateWeight * best_rate();
}

double AutoLength::best_rate() const {
  double best = 1;
  for (int k = 1; k <= max_drafts_; ++k) {
    best = std::max(best, yield_.tokens(k) / costs_.round_cost(k));
  }
  return best;
}

double AutoLength::tokens_per_step() const {
  return std::max(1.0, std::min(best_rate(), tokens_ / steps_));
}

int AutoLength::best(int lowest, double tokens_per_step) const {
  int chosen = lowest;
  double most = 0;
  for (int k = lowest; k <= max_drafts_; ++k) {
    const double gain = yield_.tokens(k) - tokens_per_step * costs_.round_cost(k);
    if (k > lowest && gain <= most) continue;
    chosen = k;
    most = gain;
  }
  return chosen;
}

double AutoLength::loss_of(int num_drafts) const {
  return costs_.round_cost(num_drafts) - 1 + catch_up_cost_ * plain_rounds_;
}

bool AutoLength::affordable(int num_drafts) const {
  return loss_of(num_drafts) <= balance_ - std::accumulate(at_risk_.begin(), at_risk_.end(), 0.0);
}

bool AutoLength::may_pay() const {
  const auto chances = acceptance_.conditional(kBenefitOfDoubt);
  return best_speedup(costs_, chances).speedup > 1;
}

bool AutoLength::may_try(int num_drafts) const {
  if (read_ < probe_round_) return false;
  return (plain_rounds_ >= probe_interval_ || may_pay()) && affordable(num_drafts);
}

bool AutoLength::look_at_plain() {
  if (!estimate_.learns()) return false;
  if (plain_look_left_ == 0) {
    const double cost = kPlainLookRounds * (1 - 1 / tokens_per_step()) + kColdStep;
    if (look_credit_ < cost) return false;
    look_credit_ -= cost;
    plain_look_left_ = kPlainLookRounds;
  }
  --plain_look_left_;
  return true;
}

int AutoLength::choose() {
  if (max_drafts_ == 0 || !can_pay_) return 0;
  int drafts = best(0, tokens_per_step());
  // Until a draft has stood, little but what is assumed speaks for drafting.
  if (drafts > 0 && !some_stood_) {
    while (drafts > 0 && !affordable(drafts)) --drafts;
    if (failures_ >= kFailuresToGiveUp) drafts = 0;
  }
  if (drafts > 0) return look_at_plain() ? 0 : drafts;
  const int trial = best(1, 1.0);
  if (!may_try(trial)) return 0;
  probe_round_ = launched_ + 1;
  return trial;
}

int AutoLength::next() {
  const bool chooses = wanted_ == kAutoDraftLength;
  const int drafts = chooses ? choose() : wanted_;
  at_risk_.push_back(chooses && drafts > 0 ? loss_of(drafts) : 0);
  ++launched_;
  return drafts;
}

/// By the table; but where costs are learnt, the first plain steps behind drafts, which find the
/// main model's weights out of the cache, count for what they took.
double AutoLength::steps_of(const RoundOutcome& outcome, int drafts) const {
  const double expected =
      costs_.round_cost(drafts) + (drafts > 0 ? catch_up_cost_ * plain_rounds_ : 0);
  const double plain = estimate_.plain_seconds();
  if (!times_count(outcome) || drafts > 0 || plain_rounds_ > 0 || plain <= 0) return expected;
  return std::clamp((outcome.draft_seconds + outcome.verify_seconds) / plain, expected,
                    kMostAftermath * expected);
}

void AutoLength::observe(const RoundOutcome& outcome) {
  ++read_;
  if (!at_risk_.empty()) at_risk_.pop_front();
  const int drafts = std::clamp(outcome.num_drafts, 0, max_drafts_);
  const double tokens = outcome.num_accepted + 1.0;
  if (estimate_.learns() && wanted_ == kAutoDraftLength && times_count(outcome)) {
    estimate_.observe(outcome, plain_rounds_);
    adopt_costs();
  }
  const double steps = steps_of(outcome, drafts);
  if (drafts > 0) {
    const auto chances = acceptance_.conditional(kBenefitOfNext);
    const size_t next = std::min(static_cast<size_t>(drafts), chances.size() - 1);
    yield_.observe(drafts, outcome.num_accepted, chances[next]);
    acceptance_.observe(drafts, outcome.num_accepted);
    const bool failed = outcome.num_accepted == 0;
    if (wanted_ == kAutoDraftLength) {
      failures_ += failed ? 1 : 0;
      some_stood_ = some_stood_ || !failed;
    }
    if (plain_rounds_ >= probe_interval_) {
      probe_interval_ = failed ? std::min(2 * probe_interval_, kLastProbe) : kFirstProbe;
    }
    plain_rounds_ = 0;
  } else {
    ++plain_rounds_;
    // A bad passage is to be forgotten, but only where drafts have stood at all.
    if (some_stood_) yield_.pass();
  }
  if (wanted_ == kAutoDraftLength) {
    won_ += tokens - steps;
    if (drafts > 0) look_credit_ += kPlainLookShare * steps;
  }
  balance_ = std::min(balance_ + tokens - steps + loss_share_ * steps, kMostBalance);
  tokens_ = kRateRemembered * tokens_ + tokens;
  steps_ = kRateRemembered * steps_ + steps;
}

}  // namespace tandem
