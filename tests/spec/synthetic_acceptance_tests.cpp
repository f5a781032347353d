// Acceptance that is made up: it is what was asked for, whatever the models, the rule and K say.

#include "spec/synthetic_acceptance.h"

#include <algorithm>

#include "loop.h"
#include "support/catch.h"
#include "support/sanitized.h"
#include "tandem/speedup.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Kind = DecodeRule::Kind;
constexpr int kRounds = 2000, kMostDrafts = 6;
constexpr int kNoLimit = 1 << 20;
const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 2, 6, 3, 1};

Loop::Options options_of(DrafterKind drafter, DraftQuality quality) {
  Loop::Options options;
  options.vocab = 8;
  options.drafter = drafter;
  options.quality = quality;
  options.max_drafts = kMostDrafts;
  options.max_positions = options.draft_max_positions = kRounds * (kMostDrafts + 1) + 64;
  options.table_seed = 5;
  return options;
}

struct Rounds {
  std::vector<int32_t> tokens;
  std::vector<int> drafts, accepted;
  bool operator==(const Rounds&) const = default;

  double mean_length() const {
    int64_t drafting = 0, stood = 0;
    for (size_t i = 0; i < drafts.size(); ++i) {
      drafting += drafts[i] > 0 ? 1 : 0;
      stood += accepted[i];
    }
    return 1 + static_cast<double>(stood) / static_cast<double>(drafting);
  }
  /// Share of the rounds in which at least `count` drafts stood.
  double rate(int count) const {
    const auto stood = std::count_if(accepted.begin(), accepted.end(),
                                     [&](int accepted_now) { return accepted_now >= count; });
    return static_cast<double>(stood) / static_cast<double>(accepted.size());
  }
};

Rounds decode(Loop& loop, const DecodeSettings& settings, int rounds) {
  Rounds result;
  loop.decoder->start(kPrompt, settings);
  for (int done = 0; done < rounds; ++done) {
    const RoundResult& round = loop.decoder->round(kNoLimit);
    result.tokens.insert(result.tokens.end(), round.tokens.begin(), round.tokens.end());
    result.drafts.push_back(round.num_drafts);
    result.accepted.push_back(round.num_accepted);
  }
  return result;
}

DecodeSettings synthetic(Kind kind, int k, std::vector<double> rates, uint64_t seed = 3) {
  DecodeSettings settings = settings_of(kind, k, seed);
  settings.synthetic_acceptance_rates = std::move(rates);
  return settings;
}

}  // namespace

TEST_CASE("a mean acceptance length that is asked for is met within 1 % over 2,000 rounds",
          "[synthetic]") {
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  const auto quality = GENERATE(DraftQuality::kEqual, DraftQuality::kFar);
  const bool launch_ahead = GENERATE(false, true);
  Loop loop(options_of(DrafterKind::kModel, quality));
  uint64_t seed = 0;
  const std::vector<double> lengths =
      kSanitized ? std::vector<double>{1.02, 3.35}
                 : std::vector<double>{1.0, 1.02, 1.5, 2.0, 2.71, 3.35, 5.9, 7.0};
  for (const double length : lengths) {
    DecodeSettings settings =
        synthetic(kind, kMostDrafts, acceptance_rates_of_length(length), seed);
    settings.launch_ahead = launch_ahead;
    const double mean = decode(loop, settings, kRounds).mean_length();
    CAPTURE(name_of(kind), launch_ahead, length, seed, mean);
    CHECK(std::abs(mean - length) <= 0.01 * length);
    seed = 3 * seed + 1;
  }
}

TEST_CASE("acceptance rates that are asked for are met at each position", "[synthetic]") {
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kBlock);
  const auto drafter = GENERATE(DrafterKind::kModel, DrafterKind::kGuess);
  Loop loop(options_of(drafter, DraftQuality::kClose));
  const std::vector<double> rates = {0.9, 0.6, 0.6, 0.13};
  const Rounds rounds = decode(loop, synthetic(kind, kMostDrafts, rates), kRounds);
  for (size_t i = 0; i < rates.size(); ++i) {
    if (drafter == DrafterKind::kGuess && i >= kMostDrafts / 2) break;  // drafts less at times
    CHECK(rounds.rate(static_cast<int>(i) + 1) == Approx(rates[i]).margin(0.005));
  }
  CHECK(rounds.rate(5) == 0);
  // Fewer drafts cut the rates off.
  const Rounds cut = decode(loop, synthetic(kind, 2, rates), 500);
  CHECK(cut.rate(3) == 0);
  CHECK(cut.rate(1) == Approx(0.9).margin(0.01));
}

TEST_CASE("made-up acceptance follows from the seed, whenever the host reads", "[synthetic]") {
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  Loop loop(options_of(DrafterKind::kModel, DraftQuality::kClose));
  DecodeSettings settings = synthetic(kind, 4, acceptance_rates_of_length(2.6), 9);
  settings.launch_ahead = false;
  const Rounds once = decode(loop, settings, 300);
  CHECK(decode(loop, settings, 300) == once);
  settings.launch_ahead = true;
  CHECK(decode(loop, settings, 300) == once);
  settings.seed = 10;
  CHECK(decode(loop, settings, 300).accepted != once.accepted);
  for (const int32_t token : once.tokens) CHECK((token >= 0 && token < loop.main.vocab_size()));
}

TEST_CASE("made-up acceptance ends with the text that asked for it", "[synthetic]") {
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kBlock, Kind::kCoupled);
  Loop loop(options_of(DrafterKind::kModel, DraftQuality::kClose));
  const DecodeSettings real = settings_of(kind, 4, 2);
  const Rounds before = decode(loop, real, 100);
  const Rounds forced = decode(loop, synthetic(kind, 4, {1, 1, 1, 1}, 2), 100);
  CHECK(forced.mean_length() == 5);
  CHECK(decode(loop, real, 100) == before);
  CHECK(before.mean_length() < 5);
}

TEST_CASE("rounds without drafts are the main model's, also amid made-up acceptance",
          "[synthetic]") {
  Loop loop(options_of(DrafterKind::kModel, DraftQuality::kClose));
  const Rounds plain = decode(loop, settings_of(Kind::kGreedy, 0), 60);
  CHECK(decode(loop, synthetic(Kind::kGreedy, 0, {0.5}), 60) == plain);
}

TEST_CASE("a length becomes the rates that vary least", "[synthetic]") {
  CHECK(acceptance_rates_of_length(1) == std::vector<double>{0});
  CHECK(acceptance_rates_of_length(3) == std::vector<double>{1, 1});
  const std::vector<double> rates = acceptance_rates_of_length(3.25);
  REQUIRE(rates.size() == 3);
  CHECK(rates[1] == 1);
  CHECK(rates[2] == Approx(0.25));
  CHECK_FALSE(SyntheticAcceptance().active());
}
