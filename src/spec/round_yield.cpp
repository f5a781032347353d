#include "spec/round_yield.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tandem {
namespace {

/// What is assumed of a draft before anything is measured: for positions, and for E, where
/// expecting too much costs less than too little.
constexpr double kPriorAcceptance = 0.75;
constexpr double kPriorYieldAcceptance = 0.8;
/// Weights in observations: of the prior in the acceptance of all positions, and of that in the
/// acceptance of one.
constexpr double kPriorWeight = 4;
constexpr double kPooledWeight = 4;
/// Weights in tokens: of the prior in E, and the most of earlier texts.
constexpr double kPriorTokens = 10, kMostEarlierTokens = 20;
/// What was seen in earlier texts, after one text more.
constexpr double kTextRemembered = 0.8;
/// Weights in the estimates of a round after one round more, of a token after one more, and after
/// one that was not drafted: what is not looked at is forgotten more slowly.
constexpr double kRoundRemembered = 0.98, kTokenRemembered = 0.993, kPlainTokenRemembered = 0.995;

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
    tried_[i] *= kRoundRemembered;
    stood_[i] *= kRoundRemembered;
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

void RoundYield::reset() {
  prior_tokens_ = kPriorTokens;
  double stands = 1;
  for (size_t k = 0; k < kLengths; ++k, stands *= kPriorYieldAcceptance) {
    prior_[k] = (k == 0 ? 0 : prior_[k - 1]) + stands;
  }
  tokens_ = 0;
  rounds_.fill(0);
  for (auto& places : place_) {
    places.fill(0);
    places.front() = 1;
  }
}

void RoundYield::begin_text() {
  std::array<double, kLengths> shown{};
  for (size_t k = 0; k < kLengths; ++k) shown[k] = tokens(static_cast<int>(k));
  const double weight = std::min(prior_tokens_ + tokens_, kMostEarlierTokens);
  reset();
  prior_ = shown;
  prior_tokens_ = weight;
}

/// The next token of the text, and the chance that the draft knew it.
void RoundYield::mark(double known) {
  tokens_ = kTokenRemembered * tokens_ + 1;
  for (size_t k = 0; k < kLengths; ++k) {
    auto& places = place_[k];
    rounds_[k] = kTokenRemembered * rounds_[k] + places[0];
    double begins = places[k];
    for (size_t i = k; i-- > 0;) {
      begins += (1 - known) * places[i];
      places[i + 1] = known * places[i];
    }
    places[0] = begins;
  }
}

void RoundYield::observe(int num_drafts, int num_accepted, double next) {
  for (int i = 0; i < num_accepted; ++i) mark(1);
  mark(num_accepted < num_drafts ? 0 : next);
}

void RoundYield::pass() {
  tokens_ *= kPlainTokenRemembered;
  for (double& rounds : rounds_) rounds *= kPlainTokenRemembered;
}

double RoundYield::tokens(int num_drafts) const {
  const auto k = static_cast<size_t>(num_drafts);
  return (prior_tokens_ + tokens_) / (prior_tokens_ / prior_[k] + rounds_[k]);
}

}  // namespace tandem
