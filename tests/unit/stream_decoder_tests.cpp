#include "tokenizer/stream_decoder.h"

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "core/text.h"
#include "support/catch.h"
#include "unit/tokenizer_fixtures.h"

namespace tandem {
namespace {

using testing::fixture;
using testing::fixture_tokenizer;
using testing::Ids;

/// What a stream gives, piece by piece; the last piece is what flush gives.
std::vector<std::string> stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::vector<std::string> pieces;
  for (const int32_t id : ids) pieces.push_back(decoder.push(id));
  pieces.push_back(decoder.flush());
  return pieces;
}

std::string join(const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

Ids ids_of(const Tokenizer& tokenizer, const std::vector<std::string>& tokens) {
  Ids ids;
  for (const std::string& token : tokens) ids.push_back(tokenizer.token_id(token).value());
  return ids;
}

/// A tokenizer whose decoder is given, over a small vocabulary.
Tokenizer with_decoder(const std::string& decoder) {
  nlohmann::json file = {
      {"model", {{"vocab", nlohmann::json::object()}, {"merges", nlohmann::json::array()}}},
      {"decoder", nlohmann::json::parse(decoder)}};
  int id = 0;
  for (const char* token :
       {"▁a", "b", "▁", " ", "  ", "<0xE2>", "<0x96>", "<0x81>", "<0x41>", "Ġ", "Ã", "©", ""}) {
    file["model"]["vocab"][token] = id++;
  }
  return Tokenizer::from_json(file.dump(), "t.json");
}

TEST_CASE("a stream gives the text of decode, in whole characters", "[stream]") {
  const std::string name = GENERATE(from_range(testing::fixture_names()));
  const bool skip_special = GENERATE(false, true);
  CAPTURE(name, skip_special);
  const nlohmann::json data = fixture(name);
  const Tokenizer tokenizer = fixture_tokenizer(name);
  std::vector<Ids> sequences;
  for (const auto& entry : data.at("cases"))
    sequences.push_back(entry.at("ids_special").get<Ids>());
  for (const auto& entry : data.at("decodes")) sequences.push_back(entry.at("ids").get<Ids>());
  // Random ids, gaps and ids out of range included.
  std::mt19937 random(7);
  std::uniform_int_distribution<int32_t> any(-1, tokenizer.vocab_size());
  for (int i = 0; i < 200; ++i) {
    Ids ids(static_cast<size_t>(i % 20));
    for (int32_t& id : ids) id = any(random);
    sequences.push_back(ids);
  }
  for (const Ids& ids : sequences) {
    CAPTURE(ids);
    const std::vector<std::string> pieces = stream(tokenizer, ids, skip_special);
    CHECK(join(pieces) == tokenizer.decode(ids, skip_special));
    for (const std::string& piece : pieces) CHECK_FALSE(find_invalid_utf8(piece));
  }
}

TEST_CASE("random decoders: a stream gives the text of decode", "[stream]") {
  const std::vector<std::string> steps = {
      R"({"type": "ByteLevel"})",
      R"({"type": "ByteFallback"})",
      R"({"type": "Fuse"})",
      R"({"type": "Strip", "content": " ", "start": 1, "stop": 0})",
      R"({"type": "Strip", "content": " ", "start": 0, "stop": 2})",
      R"({"type": "Strip", "content": "b", "start": 2, "stop": 1})",
      R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"})",
      R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"})",
      R"({"type": "Replace", "pattern": {"String": "▁"}, "content": " "})",
      R"({"type": "Replace", "pattern": {"Regex": "b+"}, "content": ""})",
  };
  std::mt19937 random(11);
  const auto below = [&](size_t n) {
    return std::uniform_int_distribution<size_t>(0, n - 1)(random);
  };
  for (int i = 0; i < 300; ++i) {
    std::string list;
    for (size_t count = below(5); count > 0; --count) {
      if (!list.empty()) list += ",";
      list += steps[below(steps.size())];
    }
    const std::string decoder = R"({"type": "Sequence", "decoders": [)" + list + "]}";
    CAPTURE(decoder);
    const Tokenizer tokenizer = with_decoder(decoder);
    for (int j = 0; j < 20; ++j) {
      Ids ids(below(10));
      for (int32_t& id : ids) id = static_cast<int32_t>(below(13));
      CAPTURE(ids);
      const std::vector<std::string> pieces = stream(tokenizer, ids, false);
      CHECK(join(pieces) == tokenizer.decode(ids, false));
      for (const std::string& piece : pieces) CHECK_FALSE(find_invalid_utf8(piece));
    }
  }
}

TEST_CASE("byte-level: a character is put out when its last byte is there", "[stream]") {
  const Tokenizer tokenizer = fixture_tokenizer("llama3");
  using Pieces = std::vector<std::string>;
  // U+2581 is E2 96 81.
  CHECK(stream(tokenizer, ids_of(tokenizer, {"a", "â", "ĸ", "ģ", "b"}), false) ==
        Pieces{"a", "", "", "▁", "b", ""});
  // A wrong byte ends the attempt: one U+FFFD for the part that was well begun.
  CHECK(stream(tokenizer, ids_of(tokenizer, {"â", "ĸ", "a"}), false) ==
        Pieces{"", "", "\uFFFDa", ""});
  CHECK(stream(tokenizer, ids_of(tokenizer, {"â", "ĸ"}), false) == Pieces{"", "", "\uFFFD"});
  CHECK(stream(tokenizer, ids_of(tokenizer, {"ĸ", "ĸ"}), false) == Pieces{"\uFFFD", "\uFFFD", ""});
}

TEST_CASE("byte fallback: a run of bytes waits for its end", "[stream]") {
  const Tokenizer tokenizer = fixture_tokenizer("llama2");
  using Pieces = std::vector<std::string>;
  CHECK(stream(tokenizer, ids_of(tokenizer, {"<s>", "▁", "a", "<0xE2>", "<0x96>", "<0x81>", "a"}),
               true) == Pieces{"", "", "a", "", "", "", "▁a", ""});
  // One bad byte spoils its whole run.
  CHECK(stream(tokenizer, ids_of(tokenizer, {"<0x41>", "<0xE2>", "a"}), true) ==
        Pieces{"", "", "\uFFFD\uFFFDa", ""});
  CHECK(stream(tokenizer, ids_of(tokenizer, {"<0x41>"}), true) == Pieces{"", "A"});
}

TEST_CASE("the space at the start is stripped there alone", "[stream]") {
  const Tokenizer tokenizer = fixture_tokenizer("llama2");
  using Pieces = std::vector<std::string>;
  CHECK(stream(tokenizer, ids_of(tokenizer, {"▁", "a", "▁", "a"}), true) ==
        Pieces{"", "a", " ", "a", ""});
}

TEST_CASE("spaces that may be stripped from the end are held back", "[stream]") {
  const Tokenizer tokenizer = with_decoder(
      R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
          {"type": "Strip", "content": " ", "start": 0, "stop": 1}]})");
  using Pieces = std::vector<std::string>;
  CHECK(stream(tokenizer, ids_of(tokenizer, {"b", " ", "  ", "b", " "}), true) ==
        Pieces{"b", "", "  ", " b", "", ""});
  CHECK(stream(tokenizer, ids_of(tokenizer, {"b", " ", " ", " ", "b", " ", " "}), true) ==
        Pieces{"b", "", " ", " ", " b", "", " ", ""});
}

TEST_CASE("a flushed stream starts anew, and a moved one goes on", "[stream]") {
  const Tokenizer tokenizer = fixture_tokenizer("llama2");
  StreamDecoder decoder(tokenizer, true);
  const Ids ids = ids_of(tokenizer, {"▁", "a"});
  for (int text = 0; text < 2; ++text) {
    CHECK(decoder.push(ids[0]).empty());
    CHECK(decoder.push(ids[1]) == "a");
    CHECK(decoder.flush().empty());
  }
  CHECK(decoder.push(ids[0]).empty());
  StreamDecoder moved = std::move(decoder);
  CHECK(moved.push(ids[1]) == "a");
  CHECK(moved.flush().empty());
}

TEST_CASE("a stream outlives the tokenizer it came from", "[stream]") {
  auto tokenizer = std::make_unique<Tokenizer>(fixture_tokenizer("llama3"));
  const Ids ids = tokenizer->encode("Hello", false);
  StreamDecoder decoder(*tokenizer, true);
  tokenizer.reset();
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  text += decoder.flush();
  CHECK(text == "Hello");
}

}  // namespace
}  // namespace tandem
