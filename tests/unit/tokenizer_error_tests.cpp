#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/catch.h"
#include "tandem/error.h"
#include "tokenizer/tokenizer.h"

namespace tandem {
namespace {

using nlohmann::json;

/// A small tokenizer with one of everything, to be damaged.
const char* const kGood = R"({
  "added_tokens": [{"id": 4, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true}],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                 {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
  "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false},
  "post_processor": {"type": "TemplateProcessing",
                     "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                     "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}},
  "decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "▁": 3}, "merges": [["a", "b"]], "unk_token": "a"}
})";

/// What is thrown for a file's text; fails the test when it loads.
std::string error_of(const std::string& text) {
  try {
    Tokenizer::from_json(text, "folder/tokenizer.json");
  } catch (const ModelError& error) {
    CHECK(error.exit_code() == ExitCode::kUsage);
    return error.what();
  }
  FAIL("loaded: " << text);
  return {};
}

struct Damage {
  const char* place;               ///< JSON pointer into kGood
  const char* value;               ///< what stands there instead; null: nothing
  std::vector<std::string> words;  ///< what the message must hold besides the file
};

void check(const Damage& damage) {
  CAPTURE(damage.place);
  json file = json::parse(kGood);
  const json::json_pointer place(damage.place);
  if (damage.value == nullptr) {
    json& parent = file.at(place.parent_pointer());
    if (parent.is_array()) {
      parent.erase(std::stoul(place.back()));
    } else {
      parent.erase(place.back());
    }
  } else {
    file[place] = json::parse(damage.value);
  }
  const std::string message = error_of(file.dump());
  CAPTURE(message);
  CHECK(message.starts_with("folder/tokenizer.json: "));
  CHECK(message.find('\n') == std::string::npos);
  for (const std::string& word : damage.words) {
    INFO("lacks: " << word);
    CHECK(message.find(word) != std::string::npos);
  }
}

TEST_CASE("the undamaged file loads", "[tokenizer]") {
  const Tokenizer tokenizer = Tokenizer::from_json(kGood, "t.json");
  CHECK(tokenizer.encode("ab", true) == std::vector<int32_t>{4, 3, 2});
}

TEST_CASE("kinds that are not supported are refused by name", "[tokenizer]") {
  const std::vector<Damage> damages = {
      {"/model/type", "\"Unigram\"", {"model: ", "model type 'Unigram' is not supported", "BPE"}},
      {"/model/type", "\"WordPiece\"", {"'WordPiece'"}},
      {"/model/type", "\"WordLevel\"", {"'WordLevel'"}},
      {"/normalizer/normalizers/1",
       R"({"type": "Precompiled"})",
       {"normalizer.normalizers[1]: ", "'Precompiled'", "NFC"}},
      {"/normalizer", R"({"type": "BertNormalizer"})", {"normalizer: ", "'BertNormalizer'"}},
      {"/pre_tokenizer",
       R"({"type": "UnicodeScripts"})",
       {"pre_tokenizer: ", "'UnicodeScripts'", "Metaspace"}},
      {"/pre_tokenizer",
       R"({"type": "Sequence", "pretokenizers": [{"type": "BertPreTokenizer"}]})",
       {"pre_tokenizer.pretokenizers[0]: ", "'BertPreTokenizer'"}},
      {"/post_processor",
       R"({"type": "BertProcessing"})",
       {"post_processor: ", "'BertProcessing'", "TemplateProcessing"}},
      {"/post_processor", R"({"type": "RobertaProcessing"})", {"'RobertaProcessing'"}},
      {"/decoder", R"({"type": "WordPiece"})", {"decoder: ", "'WordPiece'", "ByteFallback"}},
      {"/decoder/decoders/0", R"({"type": "CTC"})", {"decoder.decoders[0]: ", "'CTC'"}},
      {"/decoder", R"({"type": "BPEDecoder"})", {"'BPEDecoder'"}},
      {"/model/dropout", "0.1", {"model.dropout: ", "training"}},
  };
  for (const Damage& damage : damages) check(damage);
}

TEST_CASE("a damaged vocabulary is refused with its place", "[tokenizer]") {
  const std::vector<Damage> damages = {
      {"/model", nullptr, {"lacks 'model'"}},
      {"/model", "[]", {"model: ", "expected an object"}},
      {"/model/vocab", nullptr, {"model: lacks 'vocab'"}},
      {"/model/vocab", "[[\"a\", -1.5]]", {"model.vocab: ", "expected an object"}},
      {"/model/vocab/a", "-1", {"model.vocab.a: ", "-1"}},
      {"/model/vocab/a", "4194304", {"model.vocab.a: ", "4194304"}},
      {"/model/vocab/a", "9223372036854775808", {"model.vocab.a: ", "9223372036854775808"}},
      {"/model/vocab/a", "18446744073709551615", {"model.vocab.a: "}},
      {"/model/vocab/a", "1e300", {"model.vocab.a: ", "1e+300"}},
      {"/model/vocab/a", "0.5", {"model.vocab.a: ", "0.5"}},
      {"/model/vocab/a", "\"0\"", {"model.vocab.a: ", "'0'"}},
      {"/model/vocab/a", "null", {"model.vocab.a: ", "null"}},
      {"/model/vocab/a", "1", {"model.vocab: ", "id 1 is given to both 'a' and 'b'"}},
      {"/model/merges", nullptr, {"model: lacks 'merges'"}},
      {"/model/merges", "{}", {"model.merges: ", "expected an array"}},
      {"/model/merges/0", "[\"a\", \"x\"]", {"model.merges[0]: ", "lacks 'x'"}},
      {"/model/merges/0", "[\"b\", \"a\"]", {"model.merges[0]: ", "lacks 'ba'"}},
      {"/model/merges/0", "[\"a\"]", {"model.merges[0]: "}},
      {"/model/merges/0", "[\"a\", 1]", {"model.merges[0]: "}},
      {"/model/merges/0", "\"ab\"", {"model.merges[0]: "}},
      {"/model/merges/0", "\"a b c\"", {"model.merges[0]: "}},
      {"/model/merges/0", "7", {"model.merges[0]: "}},
      {"/model/continuing_subword_prefix", "\"##\"", {"model.merges[0]: ", "prefix"}},
      {"/model/unk_token", "\"<unk>\"", {"model.unk_token: ", "'<unk>'"}},
      {"/model/unk_token", "3", {"model.unk_token: ", "expected a string"}},
      {"/model/byte_fallback", "1", {"model.byte_fallback: ", "true or false"}},
      {"/model/dropout", "\"x\"", {"model.dropout: ", "number"}},
  };
  for (const Damage& damage : damages) check(damage);
}

TEST_CASE("damaged added tokens are refused with their place", "[tokenizer]") {
  const std::vector<Damage> damages = {
      {"/added_tokens", "{}", {"added_tokens: ", "expected an array"}},
      {"/added_tokens/0", "3", {"added_tokens[0]: "}},
      {"/added_tokens/0/id", nullptr, {"added_tokens[0]: lacks 'id'"}},
      {"/added_tokens/0/id", "-4", {"added_tokens[0].id: ", "-4"}},
      {"/added_tokens/0/id", "99999999999", {"added_tokens[0].id: "}},
      {"/added_tokens/0/id", "1", {"added_tokens[0]: ", "id 1 is given to '<s>'", "'b'"}},
      {"/added_tokens/0/content", "\"a\"", {"added_tokens[0]: ", "'a' has id 4", "gives it 0"}},
      {"/added_tokens/0/content", "[]", {"added_tokens[0].content: "}},
      {"/added_tokens/0/special", "\"yes\"", {"added_tokens[0].special: "}},
      {"/added_tokens/1",
       R"({"id": 4, "content": "<t>"})",
       {"added_tokens[1]: ", "id 4", "more than one"}},
      {"/added_tokens/1",
       R"({"id": 5, "content": "<s>"})",
       {"added_tokens[1]: ", "'<s>'", "more than once"}},
  };
  for (const Damage& damage : damages) check(damage);
}

TEST_CASE("damaged components are refused with their place", "[tokenizer]") {
  const std::vector<Damage> damages = {
      {"/normalizer", "3", {"normalizer: ", "expected an object"}},
      {"/normalizer", "{}", {"normalizer: lacks 'type'"}},
      {"/normalizer/type", "null", {"normalizer.type: "}},
      {"/normalizer/normalizers", "{}", {"normalizer.normalizers: "}},
      {"/normalizer/normalizers/0/prepend",
       nullptr,
       {"normalizer.normalizers[0]: lacks 'prepend'"}},
      {"/normalizer/normalizers/1/pattern",
       "\" \"",
       {"normalizer.normalizers[1].pattern: ", "Regex"}},
      {"/normalizer/normalizers/1/pattern",
       R"({"String": 1})",
       {"normalizer.normalizers[1].pattern.String: "}},
      {"/pre_tokenizer/pattern/Regex", "\"(a\"", {"pre_tokenizer.pattern.Regex: ", "'(a'"}},
      {"/pre_tokenizer/pattern/Regex", "\"[a\"", {"character class without end"}},
      {"/pre_tokenizer/pattern/Regex", "\"a)\"", {"unmatched )"}},
      {"/pre_tokenizer/pattern/Regex", "\"*\"", {"quantifier"}},
      {"/pre_tokenizer/pattern/Regex", R"("\\p{Klingon}")", {"property"}},
      {"/pre_tokenizer/pattern/Regex", R"("\\Qa")", {"\\Q"}},
      {"/pre_tokenizer/pattern/Regex", R"("(*COMMIT)a")", {"not supported"}},
      {"/pre_tokenizer/pattern/Regex", R"("a\\")", {"backslash"}},
      {"/pre_tokenizer/behavior",
       "\"isolated\"",
       {"pre_tokenizer.behavior: ", "'isolated'", "Isolated"}},
      {"/pre_tokenizer/invert", "0", {"pre_tokenizer.invert: "}},
      {"/pre_tokenizer", R"({"type": "Metaspace"})", {"pre_tokenizer: lacks 'replacement'"}},
      {"/pre_tokenizer",
       R"({"type": "Metaspace", "replacement": "xy"})",
       {"pre_tokenizer.replacement: ", "'xy'"}},
      {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": ""})", {"single character"}},
      {"/pre_tokenizer",
       R"({"type": "Metaspace", "replacement": "x", "prepend_scheme": "last"})",
       {"pre_tokenizer.prepend_scheme: ", "'last'", "first"}},
      {"/pre_tokenizer",
       R"({"type": "Metaspace", "replacement": "x", "prepend_scheme": "first", "add_prefix_space": false})",
       {"contradicts"}},
      {"/pre_tokenizer", R"({"type": "Digits"})", {"lacks 'individual_digits'"}},
      {"/post_processor/single", "\"<s> $A\"", {"post_processor.single: ", "array"}},
      {"/post_processor/single/0", "{}", {"post_processor.single[0]: "}},
      {"/post_processor/single/0/SpecialToken/id", "\"<t>\"", {"special_tokens lacks '<t>'"}},
      {"/post_processor/single/1/Sequence/id",
       "\"B\"",
       {"post_processor.single[1].Sequence.id: ", "'B'"}},
      {"/post_processor/single/1", nullptr, {"post_processor.single: lacks the sequence 'A'"}},
      {"/post_processor/single/2", R"({"Sequence": {"id": "A", "type_id": 0}})", {"two places"}},
      {"/post_processor/special_tokens/<s>/ids/0", "77", {"post_processor: ", "id 77", "no token"}},
      {"/post_processor/special_tokens/<s>/ids/0", "-1", {"special_tokens.<s>.ids[0]: "}},
      {"/post_processor",
       R"({"type": "Sequence", "processors": [
            {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}], "special_tokens": {}},
            {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}], "special_tokens": {}}]})",
       {"post_processor.processors[1]: ", "second template"}},
      {"/decoder/decoders/1/start", "-1", {"decoder.decoders[1].start: "}},
      {"/decoder/decoders/1/content", "\"\"", {"decoder.decoders[1].content: "}},
      {"/decoder/decoders", nullptr, {"decoder: lacks 'decoders'"}},
  };
  for (const Damage& damage : damages) check(damage);
}

TEST_CASE("components may not nest without end", "[tokenizer]") {
  struct Kind {
    const char* key;
    const char* list;
  };
  for (const Kind& kind :
       {Kind{"normalizer", "normalizers"}, Kind{"pre_tokenizer", "pretokenizers"},
        Kind{"post_processor", "processors"}, Kind{"decoder", "decoders"}}) {
    constexpr int kDepth = 10'000;
    std::string nested;
    for (int i = 0; i < kDepth; ++i)
      nested += std::string(R"({"type": "Sequence", ")") + kind.list + "\": [";
    for (int i = 0; i < kDepth; ++i) nested += "]}";
    const std::string message = error_of(R"({"model": {"vocab": {"a": 0}, "merges": []}, ")" +
                                         std::string(kind.key) + "\": " + nested + "}");
    CHECK(message.find("nest too deeply") != std::string::npos);
  }
}

TEST_CASE("what is no JSON is refused in one line", "[tokenizer]") {
  for (const char* text : {"", "{", "null", "[]", "3", "{\"model\": \"\xFF\"}",
                           "{\"a\": \"\\ud800\"}", "\xEF\xBB\xBF", "{}x\n\n"}) {
    const std::string message = error_of(text);
    CAPTURE(message);
    CHECK(message.starts_with("folder/tokenizer.json: "));
    CHECK(message.find('\n') == std::string::npos);
  }
  CHECK(error_of(std::string(100'000, '[')).size() < 500);
}

TEST_CASE("a folder without tokenizer.json is refused", "[tokenizer]") {
  const std::string folder =
      GENERATE(std::string("/no/such/folder"), std::string(TANDEM_SOURCE_DIR) + "/tests");
  try {
    Tokenizer::from_folder(folder);
    FAIL("loaded");
  } catch (const ModelError& error) {
    CHECK(std::string(error.what()).starts_with(folder + "/tokenizer.json: "));
  }
}

TEST_CASE("a pattern that backtracks without end fails in bounded time", "[tokenizer]") {
  json file = json::parse(kGood);
  file["pre_tokenizer"]["pattern"]["Regex"] = "(a|aa|aaa)+$x|(?:a?){40}a{40}b";
  const Tokenizer tokenizer = Tokenizer::from_json(file.dump(), "t.json");
  CHECK_THROWS_AS(tokenizer.encode(std::string(200, 'a'), false), ModelError);
  // It is this text's fault alone.
  CHECK(tokenizer.encode("ab", true) == std::vector<int32_t>{4, 3, 2});
}

}  // namespace
}  // namespace tandem
