// Rounds queued before the host has read the one in front of them: what a caller sees is the same
// as without, and inside a round nothing is allocated and nothing waits but for its results.

#include <algorithm>

#include "loop.h"
#include "support/catch.h"
#include "support/counting_backend.h"
#include "tandem/error.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Kind = DecodeRule::Kind;
using Tokens = std::vector<int32_t>;
const Tokens kPrompt = {3, 1, 4, 1, 5, 2, 6, 3, 1};

/// A text as its caller saw it.
struct Text {
  Tokens tokens;
  std::vector<int> drafts;  ///< K of each round
  std::vector<float> logprobs;
  bool operator==(const Text&) const = default;
};

Loop::Options options_of(DrafterKind drafter) {
  Loop::Options options;
  options.vocab = 8;
  options.drafter = drafter;
  options.max_drafts = 6;
  options.max_positions = 48;
  options.draft_max_positions = 48;
  options.table_seed = 5;
  return options;
}

/// At most `limit` tokens, and no round behind the first `stop` token (-1: none).
Text decode(SpeculativeDecoder& decoder, int limit, int32_t stop = -1) {
  Text text;
  const auto left = [&] { return limit - static_cast<int>(text.tokens.size()); };
  while (left() > 0 && decoder.remaining_positions() > 0) {
    const RoundResult& round = decoder.round(left());
    REQUIRE(static_cast<int>(round.tokens.size()) <= left());
    text.tokens.insert(text.tokens.end(), round.tokens.begin(), round.tokens.end());
    text.drafts.push_back(round.num_drafts);
    for (const RoundLogprobs& token : round.logprobs) text.logprobs.push_back(token.logprob);
    if (std::ranges::find(round.tokens, stop) != round.tokens.end()) break;
  }
  return text;
}

DecodeSettings ahead(DecodeSettings settings, bool launch_ahead) {
  settings.launch_ahead = launch_ahead;
  return settings;
}

}  // namespace

TEST_CASE("texts are the same with and without launching ahead", "[launch_ahead]") {
  const auto drafter =
      GENERATE(DrafterKind::kNone, DrafterKind::kModel, DrafterKind::kNgram, DrafterKind::kGuess);
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  Loop::Options options = options_of(drafter);
  options.draft_max_positions = GENERATE(48, 21);  // the draft's context may end first
  Loop loop(std::move(options));
  for (const int k : {0, 1, 3, 6}) {
    for (int limit = 1; limit <= 40; ++limit) {  // 39 fill the context
      DecodeSettings settings = settings_of(kind, k, static_cast<uint64_t>(limit));
      settings.rule.transform.frequency_penalty = limit % 3 == 0 ? 0.2f : 0.0f;
      settings.logprobs = limit % 4 == 0 ? 2 : -1;
      CAPTURE(static_cast<int>(drafter), name_of(kind), k, limit);
      loop.decoder->start(kPrompt, ahead(settings, false));
      const Text expected = decode(*loop.decoder, limit);
      loop.decoder->start(kPrompt, ahead(settings, true));
      REQUIRE(decode(*loop.decoder, limit) == expected);
      loop.decoder->restart(ahead(settings, true));
      REQUIRE(decode(*loop.decoder, limit) == expected);
    }
  }
}

TEST_CASE("a text that ends early leaves nothing behind for the next", "[launch_ahead]") {
  const auto drafter = GENERATE(DrafterKind::kNone, DrafterKind::kModel);
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kBlock);
  Loop loop(options_of(drafter)), fresh(options_of(drafter));
  const Tokens other = {2, 2, 7};
  for (int32_t stop = 0; stop < 8; ++stop) {
    const DecodeSettings settings = settings_of(kind, 4, static_cast<uint64_t>(stop));
    fresh.decoder->start(kPrompt, ahead(settings, false));
    const Text expected = decode(*fresh.decoder, 30, stop);
    const Text whole = (fresh.decoder->restart(ahead(settings, false)), decode(*fresh.decoder, 30));
    fresh.decoder->start(other, ahead(settings, false));
    const Text behind = decode(*fresh.decoder, 30);

    loop.decoder->start(kPrompt, ahead(settings, true));
    CHECK(decode(*loop.decoder, 30, stop) == expected);
    loop.decoder->restart(ahead(settings, true));
    CHECK(decode(*loop.decoder, 30) == whole);
    loop.decoder->restart(ahead(settings, true));
    CHECK(decode(*loop.decoder, 30, stop) == expected);
    loop.decoder->start(other, ahead(settings, true));
    CHECK(decode(*loop.decoder, 30) == behind);
  }
}

TEST_CASE("the next round is launched before the last is read", "[launch_ahead]") {
  const auto passes_of_first_round = [](DrafterKind drafter, int limit, bool launch_ahead) {
    Loop loop(options_of(drafter));
    loop.decoder->start(kPrompt, ahead(settings_of(Kind::kBlock, 3), launch_ahead));
    const int64_t prefill = loop.main.passes();
    loop.decoder->round(limit);
    return loop.main.passes() - prefill;
  };
  for (const auto drafter : {DrafterKind::kNone, DrafterKind::kModel}) {
    CHECK(passes_of_first_round(drafter, 30, true) == 2);
    CHECK(passes_of_first_round(drafter, 30, false) == 1);
    CHECK(passes_of_first_round(drafter, 1, true) == 1);  // there may be no second
  }
  // The next K would hang on what this round gives: 4 tokens at most, and 6 drafts may be wanted.
  CHECK(passes_of_first_round(DrafterKind::kModel, 11, true) == 2);
  CHECK(passes_of_first_round(DrafterKind::kModel, 10, true) == 1);
  // A drafter on the host must know the last round.
  CHECK(passes_of_first_round(DrafterKind::kNgram, 30, true) == 1);
}

TEST_CASE("a limit that a queued round may exceed is refused", "[launch_ahead]") {
  Loop loop(options_of(DrafterKind::kModel)), fresh(options_of(DrafterKind::kModel));
  const DecodeSettings settings = settings_of(Kind::kGreedy, 3);
  const Tokens expected = fresh.generate(kPrompt, settings, 20);
  loop.decoder->start(kPrompt, ahead(settings, true));
  Tokens text = loop.decoder->round(30).tokens;
  CHECK_THROWS_AS(loop.decoder->round(3), UsageError);
  while (text.size() < 20) {
    const RoundResult& round = loop.decoder->round(30 - static_cast<int>(text.size()));
    text.insert(text.end(), round.tokens.begin(), round.tokens.end());
  }
  text.resize(20);
  CHECK(text == expected);
}

TEST_CASE("a round allocates nothing and waits once", "[launch_ahead]") {
  const auto drafter = GENERATE(DrafterKind::kNone, DrafterKind::kModel, DrafterKind::kNgram);
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  const bool launch_ahead = GENERATE(false, true);
  const int logprobs = GENERATE(-1, 2);
  auto counting = std::make_unique<CountingBackend>(make_backend(DeviceSpec{}, 1));
  const Counters& counters = counting->counters();
  Loop loop(options_of(drafter), std::move(counting));
  DecodeSettings settings = ahead(settings_of(kind, 4, 7), launch_ahead);
  settings.logprobs = logprobs;
  loop.decoder->start(kPrompt, settings);
  for (int done = 0; done < 5; ++done) {
    const Counters before = counters;
    loop.decoder->round(100);
    CAPTURE(static_cast<int>(drafter), name_of(kind), launch_ahead, done);
    CHECK(counters.allocations == before.allocations);
    CHECK(counters.host_buffers == before.host_buffers);
    CHECK(counters.stream_waits == before.stream_waits);
    CHECK(counters.event_waits == before.event_waits + 1);
  }
  // The counters count.
  const Counters before = counters;
  loop.decoder->restart(settings);
  CHECK(counters.stream_waits > before.stream_waits);
  CHECK(before.allocations > 0);
  CHECK(before.host_buffers > 0);
}
