// What the decoder promises token for token: greedy and coupled texts that no drafter changes,
// seeds, limits, restarts, log-probabilities.

#include <algorithm>
#include <cmath>
#include <set>

#include "loop.h"
#include "support/catch.h"
#include "support/forwarding_backend.h"
#include "tandem/error.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Kind = DecodeRule::Kind;
const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 2, 6, 3, 1};

Loop::Options options_of(DrafterKind drafter, DraftQuality quality = DraftQuality::kClose) {
  Loop::Options options;
  options.vocab = 8;
  options.drafter = drafter;
  options.quality = quality;
  options.max_drafts = kMaxSpeculativeTokens;
  options.max_positions = 256;
  options.draft_max_positions = 256;
  options.table_seed = 5;
  return options;
}

/// A policy that asks for the lengths of a list in turn.
class ListedLengths final : public DraftLengthPolicy {
 public:
  /// @param outcomes takes down what was observed of the text at hand; may be null
  explicit ListedLengths(std::vector<int> lengths, std::vector<RoundOutcome>* outcomes = nullptr)
      : lengths_(std::move(lengths)), outcomes_(outcomes) {}
  void start(int) override {
    at_ = 0;
    if (outcomes_ != nullptr) outcomes_->clear();
  }
  int next() override { return lengths_[at_++ % lengths_.size()]; }
  void observe(const RoundOutcome& outcome) override {
    if (outcomes_ != nullptr) outcomes_->push_back(outcome);
  }

 private:
  std::vector<int> lengths_;
  std::vector<RoundOutcome>* outcomes_;
  size_t at_ = 0;
};

struct TransformCase {
  const char* name;
  SamplingTransform transform;
};

std::vector<TransformCase> transforms() {
  SamplingTransform none, penalties, cut;
  penalties.repetition_penalty = 1.4f;
  penalties.presence_penalty = 0.3f;
  penalties.frequency_penalty = 0.2f;
  cut.top_k = 5;
  cut.top_p = 0.9f;
  cut.min_p = 0.05f;
  return {{"none", none}, {"penalties", penalties}, {"cut", cut}};
}

}  // namespace

TEST_CASE("greedy and coupled texts do not depend on the drafter", "[decoder]") {
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kCoupled);
  const float temperature = kind == Kind::kGreedy ? 0.0f : GENERATE(0.8f, 1.0f);
  constexpr int kTokens = 120;
  for (const TransformCase& c : transforms()) {
    DecodeSettings settings = settings_of(kind, 0, 42);
    settings.rule.transform = c.transform;
    settings.rule.transform.temperature = temperature;
    Loop plain(options_of(DrafterKind::kNone));
    const auto expected = plain.generate(kPrompt, settings, kTokens);
    CHECK(std::set<int32_t>(expected.begin(), expected.end()).size() > 2);
    for (const auto drafter : {DrafterKind::kModel, DrafterKind::kNgram, DrafterKind::kGuess}) {
      for (const auto quality : {DraftQuality::kEqual, DraftQuality::kClose, DraftQuality::kFar}) {
        if (drafter != DrafterKind::kModel && quality != DraftQuality::kClose) continue;
        for (const bool apart : {false, true}) {
          if (apart && drafter != DrafterKind::kModel) continue;
          Loop::Options options = options_of(drafter, quality);
          options.apart = apart;
          Loop loop(std::move(options));
          for (int k = 1; k <= kMaxSpeculativeTokens; ++k) {
            settings.num_speculative_tokens = k;
            CAPTURE(c.name, static_cast<int>(drafter), name_of(quality), k, apart);
            REQUIRE(loop.generate(kPrompt, settings, kTokens) == expected);
          }
          // The draft is the main model, and its penalties see what it drafted: all must stand.
          if (quality == DraftQuality::kEqual) CHECK(loop.num_accepted == loop.num_draft_tokens);
          CHECK(loop.num_drafts > 0);
        }
      }
    }
  }
}

TEST_CASE("an equal draft is accepted whole under every rule and transform", "[decoder]") {
  const Kind kind = GENERATE(Kind::kRejection, Kind::kBlock);
  const bool apart = GENERATE(false, true);
  for (const TransformCase& c : transforms()) {
    Loop::Options options = options_of(DrafterKind::kModel, DraftQuality::kEqual);
    options.apart = apart;
    Loop loop(std::move(options));
    DecodeSettings settings = settings_of(kind, 6);
    settings.rule.transform = c.transform;
    loop.generate(kPrompt, settings, 200);
    CAPTURE(c.name, apart);
    CHECK(loop.num_accepted == loop.num_draft_tokens);
  }
}

TEST_CASE("rounds without drafts leave no hole in the draft's cache", "[decoder]") {
  // With a hole the draft would see other tokens than the main model and an equal draft would fail.
  const auto lengths = GENERATE(std::vector<int>{0, 3}, std::vector<int>{2, 0, 0, 0, 1},
                                std::vector<int>{1, 0, 4, 0, 0, 2}, std::vector<int>(24, 0));
  Loop::Options options = options_of(DrafterKind::kModel, DraftQuality::kEqual);
  options.apart = GENERATE(false, true);
  std::vector<int> cycle = lengths;
  cycle.push_back(5);
  options.policy = std::make_unique<ListedLengths>(cycle);
  Loop loop(std::move(options));
  const DecodeSettings settings = settings_of(Kind::kBlock, kMaxSpeculativeTokens);
  loop.generate(kPrompt, settings, 150);
  CHECK(loop.num_draft_tokens > 0);
  CHECK(loop.num_accepted == loop.num_draft_tokens);
}

TEST_CASE("rounds with and without drafts mixed follow the main model's law", "[decoder]") {
#ifdef TANDEM_SANITIZED
  constexpr int kDraws = 5000;
#else
  constexpr int kDraws = 100000;
#endif
  Loop::Options options = options_of(DrafterKind::kModel);
  options.vocab = 4;
  options.policy = std::make_unique<ListedLengths>(std::vector<int>{0, 2, 0, 1});
  Loop loop(std::move(options));
  const Kind kind = GENERATE(Kind::kRejection, Kind::kBlock);
  CHECK(joint_test(loop, kind, 4, 5, 4, kDraws).p_value > kSignificance);
}

TEST_CASE("a draft apart gives the texts of one beside the main model", "[decoder]") {
  // The same draft sees the same round: what was committed, seeds, penalties, rounds without
  // drafts.
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  const bool launch_ahead = GENERATE(false, true);
  for (const TransformCase& c : transforms()) {
    const auto loop_of = [&](bool apart) {
      Loop::Options options = options_of(DrafterKind::kModel);
      options.apart = apart;
      options.launch_ahead = launch_ahead;
      options.policy = std::make_unique<ListedLengths>(std::vector<int>{3, 0, 5, 0, 0, 1, 7});
      return Loop(std::move(options));
    };
    Loop beside = loop_of(false), apart = loop_of(true);
    for (const auto& prompt : {kPrompt, std::vector<int32_t>{2}, std::vector<int32_t>{2, 7, 1}}) {
      for (const uint64_t seed : {3, 4}) {  // the second time it is a restart
        DecodeSettings settings = settings_of(kind, kMaxSpeculativeTokens, seed);
        const float temperature = settings.rule.transform.temperature;
        settings.rule.transform = c.transform;
        settings.rule.transform.temperature = temperature;
        CAPTURE(name_of(kind), c.name, prompt.size(), seed, launch_ahead);
        const auto expected = beside.generate(prompt, settings, 120);
        CHECK(apart.generate(prompt, settings, 120) == expected);
        CHECK(apart.num_accepted == beside.num_accepted);
        CHECK(apart.num_draft_tokens == beside.num_draft_tokens);
      }
    }
    CHECK(beside.num_accepted > 0);
  }
}

TEST_CASE("the seed alone decides", "[decoder]") {
  const Kind kind = GENERATE(Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  Loop loop(options_of(DrafterKind::kModel)), other(options_of(DrafterKind::kModel));
  constexpr int kTokens = 60;
  const auto text = [&](Loop& l, uint64_t seed) {
    return l.generate(kPrompt, settings_of(kind, 3, seed), kTokens);
  };
  std::set<std::vector<int32_t>> texts;
  for (uint64_t seed = 0; seed < 20; ++seed) texts.insert(text(loop, seed));
  CHECK(texts.size() == 20);
  // Again after restarts, in another decoder, after another prompt, with a seed beyond 32 bits.
  const auto expected = text(loop, 7);
  CHECK(text(other, 7) == expected);
  loop.generate(std::vector<int32_t>{2, 2}, settings_of(kind, 3, 1), 30);
  CHECK(text(loop, 7) == expected);
  CHECK(text(loop, 7 + (uint64_t{1} << 32)) != expected);
}

TEST_CASE("without drafts, rejection and block are coupled", "[decoder]") {
  Loop loop(options_of(DrafterKind::kNone));
  const auto expected = loop.generate(kPrompt, settings_of(Kind::kCoupled, 0, 3), 50);
  CHECK(loop.generate(kPrompt, settings_of(Kind::kRejection, 0, 3), 50) == expected);
  CHECK(loop.generate(kPrompt, settings_of(Kind::kBlock, 0, 3), 50) == expected);
}

TEST_CASE("a round yields at most what was asked for and fits", "[decoder]") {
  Loop::Options options = options_of(DrafterKind::kModel, DraftQuality::kEqual);
  options.max_positions = 32;
  options.draft_max_positions = GENERATE(32, 20, 4);
  const int draft_positions = options.draft_max_positions;
  Loop loop(std::move(options));
  const DecodeSettings settings = settings_of(Kind::kGreedy, 5);
  Loop plain(options_of(DrafterKind::kNone));
  const auto expected = plain.generate(kPrompt, settings_of(Kind::kGreedy, 0), 23);

  loop.decoder->start(kPrompt, settings);
  CHECK(loop.decoder->remaining_positions() == 32 - 9);
  std::vector<int32_t> text;
  for (const int limit : {1, 2, 3, 100, 4}) {
    const RoundResult& result = loop.decoder->round(limit);
    CHECK(static_cast<int>(result.tokens.size()) <= limit);
    CHECK(result.num_drafts <= std::min(limit - 1, 5));
    text.insert(text.end(), result.tokens.begin(), result.tokens.end());
  }
  while (loop.decoder->remaining_positions() > 0) {
    const int length = 8 + static_cast<int>(text.size());
    const RoundResult& result = loop.decoder->round(100);
    CHECK(result.num_drafts <= std::max(draft_positions - length, 0));
    CHECK(result.num_accepted == static_cast<int>(result.tokens.size()) - 1);
    text.insert(text.end(), result.tokens.begin(), result.tokens.end());
  }
  CHECK(text == expected);
  CHECK_THROWS_AS(loop.decoder->round(1), UsageError);
  loop.decoder->restart(settings);
  CHECK_THROWS_AS(loop.decoder->round(0), UsageError);
  CHECK(loop.decoder->round(1).tokens.front() == expected.front());
}

TEST_CASE("a prompt of one token, and one that just fits", "[decoder]") {
  for (const Kind kind : {Kind::kGreedy, Kind::kCoupled}) {
    Loop loop(options_of(DrafterKind::kModel)), plain(options_of(DrafterKind::kNone));
    const std::vector<int32_t> one = {2};
    CHECK(loop.generate(one, settings_of(kind, 4), 40) ==
          plain.generate(one, settings_of(kind, 0), 40));
    CHECK(loop.num_drafts > 0);
  }
  Loop::Options options = options_of(DrafterKind::kModel);
  options.max_positions = 10;
  Loop loop(std::move(options));
  loop.decoder->start(kPrompt, settings_of(Kind::kGreedy, 4));
  CHECK(loop.decoder->remaining_positions() == 1);
  CHECK(loop.decoder->round(5).tokens.size() == 1);
  CHECK(loop.decoder->remaining_positions() == 0);
}

TEST_CASE("requests that cannot be honoured leave the decoder usable", "[decoder]") {
  Loop::Options options = options_of(DrafterKind::kModel);
  options.max_positions = 10;
  Loop loop(std::move(options));
  const DecodeSettings settings = settings_of(Kind::kGreedy, 4);
  CHECK_THROWS_AS(loop.decoder->restart(settings), UsageError);
  CHECK_THROWS_AS(loop.decoder->round(1), UsageError);
  CHECK_THROWS_AS(loop.decoder->start({}, settings), UsageError);
  CHECK_THROWS_AS(loop.decoder->start(std::vector<int32_t>(10, 1), settings), UsageError);
  CHECK_THROWS_AS(loop.decoder->start(std::vector<int32_t>{1, 8}, settings), UsageError);
  CHECK_THROWS_AS(loop.decoder->start(std::vector<int32_t>{-1}, settings), UsageError);
  DecodeSettings greedy_for_logprobs = settings;
  greedy_for_logprobs.logprobs = kMaxTopLogprobs + 1;
  CHECK_THROWS_AS(loop.decoder->start(kPrompt, greedy_for_logprobs), UsageError);
  CHECK_THROWS_AS(loop.decoder->round(1), UsageError);
  loop.decoder->start(std::vector<int32_t>{1, 2}, settings);
  CHECK(loop.decoder->round(3).tokens.size() >= 1);
}

TEST_CASE("the prompt is run in chunks that the drafter does not change", "[decoder]") {
  std::vector<int32_t> prompt;
  for (int i = 0; i < 100; ++i) prompt.push_back(i * i % 8);
  Loop plain(options_of(DrafterKind::kNone)), loop(options_of(DrafterKind::kModel));
  plain.decoder->start(prompt, settings_of(Kind::kGreedy, 0));
  loop.decoder->start(prompt, settings_of(Kind::kGreedy, 4));
  CHECK(plain.main.passes() == loop.main.passes());
  CHECK(plain.main.rows_run() == 99);
  CHECK(loop.main.rows_run() == 99);
  CHECK(loop.draft.rows_run() == 99);
  // Another completion runs nothing again.
  loop.decoder->restart(settings_of(Kind::kGreedy, 4));
  CHECK(loop.main.rows_run() == 99);
  CHECK(loop.draft.rows_run() == 99);
}

TEST_CASE("log-probabilities are the main model's before the transforms", "[decoder]") {
  const auto drafter = GENERATE(DrafterKind::kNone, DrafterKind::kModel, DrafterKind::kNgram);
  const int top = GENERATE(0, 3, 20);
  Loop loop(options_of(drafter));
  DecodeSettings settings = settings_of(Kind::kBlock, 4, 9, 0.5f);
  settings.rule.transform.top_k = 3;
  settings.logprobs = top;
  loop.decoder->start(kPrompt, settings);
  std::vector<int32_t> text = kPrompt;
  for (int done = 0; done < 20; ++done) {
    const RoundResult& result = loop.decoder->round(100);
    REQUIRE(result.logprobs.size() == result.tokens.size());
    for (size_t i = 0; i < result.tokens.size(); ++i) {
      const auto probs = softmax(loop.main.logits_behind(text));
      const auto token = static_cast<size_t>(result.tokens[i]);
      CHECK(result.logprobs[i].logprob == Approx(std::log(probs[token])).margin(1e-5));
      REQUIRE(static_cast<int>(result.logprobs[i].top.size()) == std::min(top, 8));
      double last = 0;
      for (const auto& [id, logprob] : result.logprobs[i].top) {
        CHECK(logprob == Approx(std::log(probs[static_cast<size_t>(id)])).margin(1e-5));
        CHECK(logprob <= last);
        last = logprob;
      }
      text.push_back(result.tokens[i]);
    }
  }
  settings.logprobs = -1;
  loop.decoder->restart(settings);
  CHECK(loop.decoder->round(1).logprobs.empty());
}

TEST_CASE("block verification accepts at least as much as rejection", "[decoder]") {
  for (const auto quality : {DraftQuality::kClose, DraftQuality::kFar}) {
    int64_t accepted[2];
    int64_t rounds[2];
    int at = 0;
    for (const Kind kind : {Kind::kRejection, Kind::kBlock}) {
      Loop loop(options_of(DrafterKind::kModel, quality));
#ifdef TANDEM_SANITIZED
      constexpr uint64_t kTexts = 100;
#else
      constexpr uint64_t kTexts = 1000;
#endif
      for (uint64_t seed = 0; seed < kTexts; ++seed) {
        loop.generate(kPrompt, settings_of(kind, 4, seed), 60);
      }
      accepted[at] = loop.num_accepted;
      rounds[at++] = loop.num_rounds;
    }
    const double rejection = static_cast<double>(accepted[0]) / static_cast<double>(rounds[0]);
    const double block = static_cast<double>(accepted[1]) / static_cast<double>(rounds[1]);
    CAPTURE(name_of(quality), rejection, block);
    CHECK(block > rejection);
  }
}

TEST_CASE("a policy hears which rounds were captured first", "[decoder]") {
  std::vector<RoundOutcome> outcomes;
  Loop::Options options = options_of(DrafterKind::kModel);
  options.policy = std::make_unique<ListedLengths>(std::vector{2, 4, 0, 2, 4, 0}, &outcomes);
  Loop loop(std::move(options));
  const auto captured = [&](Kind rule) {
    loop.decoder->start(kPrompt, settings_of(rule, 4));
    for (int i = 0; i < 6; ++i) loop.decoder->round(100);
    std::vector<bool> flags;
    for (const RoundOutcome& outcome : outcomes) flags.push_back(outcome.captured);
    return flags;
  };
  const std::vector<bool> once_each{true, true, true, false, false, false}, never(6, false);
  CHECK(captured(Kind::kGreedy) == once_each);
  CHECK(captured(Kind::kGreedy) == never);
  CHECK(captured(Kind::kBlock) == once_each);
  CHECK(captured(Kind::kBlock) == never);
  CHECK(captured(Kind::kGreedy) == once_each);
}

TEST_CASE("a policy hears which rounds ran beside the prompt", "[decoder]") {
  class BesideHost final : public test::ForwardingBackend {
   public:
    using ForwardingBackend::ForwardingBackend;
    bool works_beside_host() const override { return true; }
  };
  const auto flags_on = [](bool beside_host) {
    std::vector<RoundOutcome> outcomes;
    Loop::Options options = options_of(DrafterKind::kModel);
    options.policy = std::make_unique<ListedLengths>(std::vector{2, 0, 3}, &outcomes);
    std::unique_ptr<Backend> backend = make_backend(DeviceSpec{}, 1);
    if (beside_host) backend = std::make_unique<BesideHost>(std::move(backend));
    Loop loop(std::move(options), std::move(backend));
    std::vector<bool> flags;
    const auto text = [&] {
      for (int i = 0; i < 3; ++i) loop.decoder->round(100);
      for (const RoundOutcome& outcome : outcomes) flags.push_back(outcome.beside_prompt);
    };
    loop.decoder->start(kPrompt, settings_of(Kind::kGreedy, 4));
    text();
    loop.decoder->restart(settings_of(Kind::kGreedy, 4));  // no prompt runs
    text();
    return flags;
  };
  CHECK(flags_on(true) == std::vector{true, false, false, false, false, false});
  CHECK(flags_on(false) == std::vector<bool>(6, false));
}

TEST_CASE("times of a round are told apart", "[decoder]") {
  Loop loop(options_of(DrafterKind::kModel));
  loop.decoder->start(kPrompt, settings_of(Kind::kBlock, 4));
  const RoundResult& result = loop.decoder->round(10);
  CHECK(result.draft_seconds > 0);
  CHECK(result.verify_seconds > 0);
  CHECK(result.draft_seconds < 10);
}
