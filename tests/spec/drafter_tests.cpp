#include <algorithm>
#include <random>

#include "loop.h"
#include "spec/vocabulary_agreement.h"
#include "support/catch.h"
#include "support/host_round.h"
#include "tandem/error.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Kind = DecodeRule::Kind;
using Tokens = std::vector<int32_t>;

/// What an n-gram drafter proposes behind a text; empty when nothing.
struct Ngram {
  Ngram(int lookup_min, int lookup_max)
      : drafter(*backend, lookup_min, lookup_max, kMaxPositions), round(8, 100) {}

  Tokens propose(int wanted) {
    const int count = drafter.capacity(0, wanted);
    if (count == 0) return {};
    drafter.draft(round.view(), {0, 0, count, 0}, *stream);
    return Tokens(round.drafts.begin(), round.drafts.begin() + count);
  }
  void start(const Tokens& prompt) { drafter.start(round.view(), prompt, DecodeRule{}, *stream); }

  static constexpr int kMaxPositions = 512;
  std::unique_ptr<Backend> backend = make_backend(DeviceSpec{}, 1);
  std::unique_ptr<Stream> stream = backend->make_stream();
  NgramDrafter drafter;
  HostRound round;
};

/// Prompt lookup written down plainly.
Tokens look_up(const Tokens& text, int lookup_min, int lookup_max, int wanted) {
  for (int n = lookup_max; n >= lookup_min; --n) {
    for (int end = static_cast<int>(text.size()) - 2; end >= n - 1; --end) {
      if (static_cast<int>(text.size()) < n) break;
      if (!std::equal(text.end() - n, text.end(), text.begin() + end + 1 - n)) continue;
      Tokens all = text;
      for (int i = 0; i < wanted; ++i) all.push_back(all[static_cast<size_t>(end + 1 + i)]);
      return Tokens(all.begin() + static_cast<ptrdiff_t>(text.size()), all.end());
    }
  }
  return {};
}

}  // namespace

TEST_CASE("n-gram drafts continue the most recent longest match", "[ngram]") {
  Ngram ngram(2, 3);
  ngram.start({1, 2, 3, 9, 1, 2, 4, 7, 2, 3, 8, 5, 1, 2, 3});
  CHECK(ngram.propose(4) == Tokens{9, 1, 2, 4});  // 1 2 3 is longer than the more recent 2 3
  ngram.drafter.observe(Tokens{6, 1, 2});
  CHECK(ngram.propose(3) == Tokens{3, 6, 1});  // the most recent 1 2
  ngram.drafter.observe(Tokens{50});
  CHECK(ngram.propose(3).empty());
  ngram.drafter.restart(DecodeRule{});
  CHECK(ngram.propose(2) == Tokens{9, 1});
  ngram.start({5});
  CHECK(ngram.propose(2).empty());
  ngram.start({7, 7, 7});
  CHECK(ngram.propose(5) == Tokens{7, 7, 7, 7, 7});  // the repetition goes on
}

TEST_CASE("the n-gram drafter's host memory is fixed and bounded", "[ngram]") {
  constexpr int kLookupMin = 2, kLookupMax = 4, kSizes = 3, kPositions = 1000;
  const auto backend = make_backend(DeviceSpec{}, 1);
  NgramDrafter drafter(*backend, kLookupMin, kLookupMax, kPositions);
  const uint64_t expected = NgramDrafter::host_bytes(kLookupMin, kLookupMax, kPositions);
  CHECK(drafter.host_bytes() == expected);
  for (int token = 0; token < kPositions; ++token) drafter.observe(Tokens{token});
  CHECK(drafter.host_bytes() == expected);
  for (const int positions : {1, 1000, 2048, 8192, 131072}) {
    CAPTURE(positions);
    const auto rows = static_cast<uint64_t>(positions + kMaxSpeculativeTokens + 1);
    const uint64_t bytes = NgramDrafter::host_bytes(kLookupMin, kLookupMax, positions);
    CHECK(bytes <= (16 * kSizes + 4) * rows);
    CHECK(bytes >= (8 * kSizes + 4) * rows);
  }
}

TEST_CASE("the n-gram index agrees with a plain search", "[ngram]") {
  const int lookup_min = GENERATE(1, 2, 3);
  const int lookup_max = lookup_min + GENERATE(0, 2);
  std::mt19937 random(static_cast<unsigned>(lookup_min * 10 + lookup_max));
  Ngram ngram(lookup_min, lookup_max);
  for (int repeat = 0; repeat < 10; ++repeat) {
    Tokens text(1 + random() % 20);
    const auto vocab = static_cast<uint32_t>(2 + random() % 6);
    for (auto& token : text) token = static_cast<int32_t>(random() % vocab);
    ngram.start(text);
    for (int round = 0; round < 40; ++round) {
      REQUIRE(ngram.propose(4) == look_up(text, lookup_min, lookup_max, 4));
      Tokens next(1 + random() % 5);
      for (auto& token : next) token = static_cast<int32_t>(random() % vocab);
      text.insert(text.end(), next.begin(), next.end());
      ngram.drafter.observe(next);
    }
  }
}

TEST_CASE("n-gram settings are checked", "[ngram]") {
  const auto backend = make_backend(DeviceSpec{}, 1);
  CHECK_THROWS_AS(NgramDrafter(*backend, 0, 3, 10), UsageError);
  CHECK_THROWS_AS(NgramDrafter(*backend, 3, 2, 10), UsageError);
}

TEST_CASE("a draft model never proposes what the mask forbids", "[model_drafter]") {
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  Loop::Options options;
  options.vocab = 8;
  options.allowed = {1, 0, 1, 1, 0, 1};  // 6 and 7 lie behind the end of the list
  const auto allowed = options.allowed;
  auto backend = make_backend(DeviceSpec{}, 1);
  const auto stream = backend->make_stream();
  TableModel draft(*backend, 8, random_table(8, 1.0f, false, 3), 64, 16);
  ModelDrafter drafter(draft, 8, options.allowed);
  HostRound round(4, 8);
  const Tokens prompt = {1, 4, 7, 0};
  std::copy(prompt.begin(), prompt.end(), round.history.begin());
  round.length = 3;
  const DecodeSettings settings = settings_of(kind, 4);
  drafter.start(round.view(), prompt, settings.rule, *stream);
  std::vector<int> seen(8);
  for (round.seed = 0; round.seed < 300; ++round.seed) {
    REQUIRE(drafter.draft(round.view(), {3, 3, 4, 0}, *stream) == 4);
    for (int i = 0; i < 4; ++i) {
      const auto d = static_cast<size_t>(round.drafts[static_cast<size_t>(i)]);
      ++seen[d];
      REQUIRE(d < allowed.size());
      REQUIRE(allowed[d] == 1);
      if (kind == Kind::kGreedy) continue;
      const float* q = round.draft_probs.data() + i * 8;
      REQUIRE(q[d] > 0);
      REQUIRE((q[1] == 0 && q[4] == 0 && q[6] == 0 && q[7] == 0));
    }
  }
  if (kind != Kind::kGreedy) CHECK((seen[0] > 0 && seen[2] > 0 && seen[3] > 0 && seen[5] > 0));
}

TEST_CASE("with a mask the loop stays exact", "[model_drafter]") {
#ifdef TANDEM_SANITIZED
  constexpr int kDraws = 5000;
#else
  constexpr int kDraws = 100000;
#endif
  const Kind kind = GENERATE(Kind::kRejection, Kind::kBlock);
  Loop::Options options;
  options.allowed = {1, 0, 1, 1};
  Loop loop(std::move(options));
  CHECK(joint_test(loop, kind, 3, 4, 3, kDraws).p_value > kSignificance);
  CHECK(loop.num_accepted > 0);
}

TEST_CASE("drafts of another vocabulary size", "[model_drafter]") {
  const Kind kind = GENERATE(Kind::kGreedy, Kind::kCoupled);
  const int draft_vocab = GENERATE(5, 11);
  constexpr int kVocab = 8;
  auto backend = make_backend(DeviceSpec{}, 1);
  TableModel main(*backend, kVocab, random_table(kVocab, 1, false, 5), 256, 16);
  TableModel draft(*backend, draft_vocab, random_table(draft_vocab, 1, false, 6), 256, 16);
  SpeculativeDecoder plain(main, nullptr, 0);
  const Tokens prompt = {7, 3, 6};
  const auto text = [&](SpeculativeDecoder& decoder, int k) {
    decoder.start(prompt, settings_of(kind, k, 1));
    Tokens tokens;
    while (tokens.size() < 100) {
      const RoundResult& result = decoder.round(k + 1);
      for (const int32_t token : result.tokens) REQUIRE(token < kVocab);
      tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
    }
    tokens.resize(100);
    return tokens;
  };
  const Tokens expected = text(plain, 0);
  SpeculativeDecoder decoder(
      main, std::make_unique<ModelDrafter>(draft, kVocab, std::span<const uint8_t>{}), 4);
  CHECK(text(decoder, 4) == expected);
}

TEST_CASE("a pair without a common token is refused", "[model_drafter]") {
  auto backend = make_backend(DeviceSpec{}, 1);
  TableModel draft(*backend, 4, random_table(4, 1, false, 6), 64, 16);
  const std::vector<uint8_t> none(4, 0);
  CHECK_THROWS_AS(ModelDrafter(draft, 4, none), ModelError);
}

TEST_CASE("vocabularies are compared by bytes", "[vocabulary]") {
  using List = std::vector<std::optional<std::string>>;
  const List main = {"a", "b", "c\n", std::nullopt, "e", "f"};
  SECTION("equal") {
    const auto result = compare_vocabularies(main, main);
    CHECK(result.same == 5);
    CHECK(result.fraction() == 1);
    CHECK(result.allowed == std::vector<uint8_t>{1, 1, 1, 0, 1, 1});
    CHECK(vocabulary_refusal(result).empty());
  }
  SECTION("padded") {
    List longer = main;
    longer.resize(12, std::nullopt);
    CHECK(compare_vocabularies(main, longer).fraction() == 1);
    const auto result = compare_vocabularies(longer, main);
    CHECK(result.fraction() == 1);
    CHECK(result.allowed.size() == 12);
    CHECK(result.allowed[11] == 0);
  }
  SECTION("other") {
    const List draft = {"a", "x", "c\n", "d", std::nullopt};
    const auto result = compare_vocabularies(main, draft);
    CHECK(result.same == 2);
    CHECK(result.different == 1);
    CHECK(result.missing == 2);
    CHECK(result.extra == 1);
    CHECK(result.fraction() == Approx(0.4));
    CHECK(result.allowed == std::vector<uint8_t>{1, 0, 1, 0, 0, 0});
    const std::string refusal = vocabulary_refusal(result);
    CHECK(refusal.find("40.00 %") != std::string::npos);
    CHECK(refusal.find("allow_vocabulary_mismatch") != std::string::npos);
    CHECK(refusal.find("id 1 is \"b\"") != std::string::npos);
    CHECK(refusal.find('\n') == std::string::npos);
  }
  SECTION("bytes that are no text are escaped") {
    const auto result = compare_vocabularies(List{"\xff\n"}, List{"ok"});
    CHECK(vocabulary_refusal(result).find("\\xff\\x0a") != std::string::npos);
  }
  SECTION("just enough") {
    List big(100, "t"), draft = big;
    for (size_t i = 0; i < 5; ++i) draft[i] = "u";
    CHECK(vocabulary_refusal(compare_vocabularies(big, draft)).empty());
    draft[5] = "u";
    CHECK(!vocabulary_refusal(compare_vocabularies(big, draft)).empty());
  }
}
