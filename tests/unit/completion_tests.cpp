#include "engine/completion_builder.h"
#include "support/catch.h"
#include "tokenizer/tokenizer.h"

using namespace tandem;

namespace {

/// A SentencePiece-style tokenizer of a few words: "▁" marks a leading space, which the decoder
/// strips from the beginning of a text.
const char* const kWords = R"({
  "added_tokens": [{"id": 0, "content": "<end>", "special": true, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false},
                   {"id": 9, "content": "<unk>", "special": true, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false}],
  "normalizer": null, "pre_tokenizer": null, "post_processor": null,
  "decoder": {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "merges": [],
            "vocab": {"<end>": 0, "▁a": 1, "▁b": 2, "c": 3, "▁stop": 4, "st": 5, "op": 6,
                      "<0xC3>": 7, "<0xA9>": 8, "<unk>": 9}}})";
constexpr int32_t kEnd = 0, kA = 1, kB = 2, kC = 3, kStop = 4, kSt = 5, kOp = 6, kByte1 = 7,
                  kByte2 = 8;

const Tokenizer& words() {
  static const Tokenizer tokenizer = Tokenizer::from_json(kWords, "words");
  return tokenizer;
}

/// A round in which `drafted` tokens were proposed and all tokens but the last come from the draft.
RoundResult round_of(std::vector<int32_t> tokens, int drafted) {
  RoundResult round;
  round.num_drafts = drafted;
  round.num_accepted = static_cast<int>(tokens.size()) - 1;
  for (const int32_t token : tokens) round.logprobs.push_back({-static_cast<float>(token), {}});
  round.tokens = std::move(tokens);
  round.draft_seconds = 0.25;
  round.verify_seconds = 0.5;
  return round;
}

struct Fixture {
  SamplingParams params;
  std::vector<int32_t> eos = {kEnd};
  std::vector<int32_t> prompt = {kA};
  std::vector<std::string> pieces;
  std::vector<bool> from_draft;
  OnText on_text = [this](const TextPiece& piece) {
    pieces.emplace_back(piece.text);
    from_draft.push_back(piece.from_draft);
  };
  CompletionBuilder make() { return {words(), eos, prompt, params, 0, 7, on_text}; }
};

}  // namespace

TEST_CASE("A completion goes on where the prompt ended: its leading space stays") {
  Fixture f;
  CompletionBuilder builder = f.make();
  builder.take(round_of({kB, kC, kA}, 2), 1);
  const Completion completion = builder.finish(FinishReason::kLength);
  CHECK(completion.text == " bc a");
  CHECK(completion.seed == 7);
  CHECK(completion.prompt_token_ids == f.prompt);
  CHECK(f.from_draft == std::vector<bool>{true, true, false});
}

TEST_CASE("An end-of-sequence token inside the accepted run drops what lies behind it") {
  Fixture f;
  CompletionBuilder builder = f.make();
  builder.take(round_of({kA, kB}, 4), 1);
  builder.take(round_of({kC, kEnd, kB, kA}, 4), 3);
  CHECK(builder.ended());
  const Completion completion = builder.finish(FinishReason::kLength);
  CHECK(completion.token_ids == std::vector<int32_t>{kA, kB, kC, kEnd});
  CHECK(completion.text == " a bc");
  CHECK(completion.finish_reason == FinishReason::kStop);
  const Stats& stats = completion.stats;
  CHECK(stats.num_tokens == 4);
  CHECK(stats.num_rounds == 2);
  CHECK(stats.num_drafts == 2);
  CHECK(stats.num_draft_tokens == 8);
  CHECK(stats.num_accepted_tokens == 1 + 2);
  CHECK(stats.accepted_per_position == std::vector<int64_t>{2, 1, 0, 0});
  CHECK(stats.time_to_first_token_seconds == 1);
  CHECK(stats.decode_seconds == 2);
  CHECK(stats.draft_seconds == 0.5);
  CHECK(stats.verify_seconds == 1.0);
}

TEST_CASE("An end-of-sequence token that is the extra token leaves every draft accepted") {
  Fixture f;
  CompletionBuilder builder = f.make();
  builder.take(round_of({kA, kB, kEnd}, 2), 1);
  CHECK(builder.finish(FinishReason::kLength).stats.num_accepted_tokens == 2);
}

TEST_CASE("An ignored end-of-sequence token is a token like others, without text") {
  Fixture f;
  f.params.ignore_eos = true;
  CompletionBuilder builder = f.make();
  builder.take(round_of({kA, kEnd, kB}, 2), 1);
  CHECK_FALSE(builder.ended());
  const Completion completion = builder.finish(FinishReason::kCancelled);
  CHECK(completion.text == " a b");
  CHECK(completion.token_ids.size() == 3);
  CHECK(completion.finish_reason == FinishReason::kCancelled);
}

TEST_CASE("A stop string across tokens and rounds ends text and tokens") {
  Fixture f;
  f.params.stop = {"stop"};
  CompletionBuilder builder = f.make();
  builder.take(round_of({kB, kSt}, 1), 1);
  CHECK_FALSE(builder.ended());
  CHECK(f.pieces == std::vector<std::string>{" b"});
  builder.take(round_of({kOp, kA, kA}, 2), 2);
  CHECK(builder.ended());
  CHECK(builder.tokens_left() == 0);
  const Completion completion = builder.finish(FinishReason::kLength);
  CHECK(completion.text == " b");
  CHECK(completion.token_ids == std::vector<int32_t>{kB, kSt, kOp});
  CHECK(completion.finish_reason == FinishReason::kStop);
  CHECK(completion.stats.num_accepted_tokens == 1 + 1);
}

TEST_CASE("What was held back for a stop string comes out when the text ends without it") {
  Fixture f;
  f.params.stop = {"stopc"};
  CompletionBuilder builder = f.make();
  builder.take(round_of({kStop}, 0), 1);
  CHECK(f.pieces == std::vector<std::string>{" "});
  CHECK(builder.finish(FinishReason::kLength).text == " stop");
  CHECK(f.pieces == std::vector<std::string>{" ", "stop"});
}

TEST_CASE("Half a character is never handed on") {
  Fixture f;
  CompletionBuilder builder = f.make();
  builder.take(round_of({kByte1}, 0), 1);
  CHECK(f.pieces.empty());
  builder.take(round_of({kByte2, kC}, 1), 2);
  CHECK(builder.finish(FinishReason::kLength).text == "éc");
}

TEST_CASE("The last token allowed ends the text") {
  Fixture f;
  f.params.max_tokens = 3;
  CompletionBuilder builder = f.make();
  CHECK(builder.tokens_left() == 3);
  builder.take(round_of({kA}, 0), 1);
  CHECK(builder.tokens_left() == 2);
  builder.take(round_of({kA, kB}, 1), 2);
  CHECK(builder.ended());
  CHECK(builder.finish(FinishReason::kCancelled).finish_reason == FinishReason::kLength);
}

TEST_CASE("Log-probabilities stand for the tokens that were kept") {
  Fixture f;
  f.params.logprobs = 0;
  CompletionBuilder builder = f.make();
  builder.take(round_of({kA, kEnd, kB}, 2), 1);
  const Completion completion = builder.finish(FinishReason::kLength);
  REQUIRE(completion.logprobs.size() == 2);
  CHECK(completion.logprobs[0].token == kA);
  CHECK(completion.logprobs[0].logprob == -1.0f);
  CHECK(completion.logprobs[1].token == kEnd);
}

TEST_CASE("A prompt that ends in the middle of a run of bytes does not leak into the completion") {
  Fixture f;
  f.prompt = {kA, kByte1, kByte2};
  CompletionBuilder builder = f.make();
  builder.take(round_of({kB}, 0), 1);
  CHECK(builder.finish(FinishReason::kLength).text == " b");
}

TEST_CASE("Half a character at the end of the prompt does not leak into the completion") {
  // "aÃ" is how byte-level vocabularies write the bytes 61 C3.
  const Tokenizer bytes = Tokenizer::from_json(R"({
    "added_tokens": [], "normalizer": null, "post_processor": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "merges": [], "vocab": {"aÃ": 0, "b": 1}}})",
                                               "bytes");
  const SamplingParams params;
  const std::vector<int32_t> prompt = {1, 0};
  const OnText nobody;
  CompletionBuilder builder(bytes, {}, prompt, params, 0, 0, nobody);
  builder.take(round_of({1}, 0), 1);
  CHECK(builder.finish(FinishReason::kLength).text == "b");
}
