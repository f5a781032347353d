#include "tokenizer/pre_tokenizer.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/catch.h"
#include "tokenizer/normalizer.h"

// What is expected here is what Hugging Face's tokenizers was seen to do.

namespace tandem {
namespace {

using Words = std::vector<std::string>;

Words split(const std::string& pre_tokenizer, const std::string& text, bool at_start = true) {
  const nlohmann::json json = nlohmann::json::parse(pre_tokenizer);
  const std::string file = "t.json";
  PieceList list({text, at_start});
  parse_pre_tokenizer(JsonNode(json, file))->split(list);
  Words words;
  for (const PieceList::Piece& piece : list.pieces) words.emplace_back(list.view(piece));
  return words;
}

std::string normalize(const std::string& normalizer, const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(normalizer);
  const std::string file = "t.json";
  NormalizedText result{text, true};
  parse_normalizer(JsonNode(json, file))->apply(result);
  return result.text;
}

TEST_CASE("Split: what becomes of the delimiters", "[pre_tokenizer]") {
  const auto hyphens = [](const std::string& behavior, bool invert) {
    return split(R"({"type": "Split", "pattern": {"String": "-"}, "behavior": ")" + behavior +
                     R"(", "invert": )" + (invert ? "true" : "false") + "}",
                 "the-final--countdown");
  };
  CHECK(hyphens("Removed", false) == Words{"the", "final", "countdown"});
  CHECK(hyphens("Isolated", false) == Words{"the", "-", "final", "-", "-", "countdown"});
  CHECK(hyphens("MergedWithPrevious", false) == Words{"the-", "final-", "-", "countdown"});
  CHECK(hyphens("MergedWithNext", false) == Words{"the", "-final", "-", "-countdown"});
  CHECK(hyphens("Contiguous", false) == Words{"the", "-", "final", "--", "countdown"});
  CHECK(hyphens("Removed", true) == Words{"-", "-", "-"});
  CHECK(hyphens("MergedWithPrevious", true) == Words{"the", "-final", "-", "-countdown"});
}

TEST_CASE("Digits, punctuation and white space", "[pre_tokenizer]") {
  CHECK(split(R"({"type": "Digits", "individual_digits": true})", "a12Ⅷb") ==
        Words{"a", "1", "2", "Ⅷ", "b"});
  CHECK(split(R"({"type": "Digits", "individual_digits": false})", "a12Ⅷb") ==
        Words{"a", "12Ⅷ", "b"});
  CHECK(split(R"({"type": "Punctuation"})", "a?!«b") == Words{"a", "?", "!", "«", "b"});
  CHECK(split(R"({"type": "Whitespace"})", "a's  b\u200Cc_1 $$") ==
        Words{"a", "'", "s", "b\u200Cc_1", "$$"});
  CHECK(split(R"({"type": "WhitespaceSplit"})", " a's\u00A0b \n") == Words{"a's", "b"});
  CHECK(split("null", " a b") == Words{" a b"});
  CHECK(split("null", "").empty());
}

TEST_CASE("Metaspace prepends by scheme", "[pre_tokenizer]") {
  const auto metaspace = [](const std::string& scheme, const std::string& text, bool at_start,
                            const char* whole) {
    return split(R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": ")" + scheme +
                     R"(", "split": )" + whole + "}",
                 text, at_start);
  };
  CHECK(metaspace("always", "a b", false, "true") == Words{"▁a", "▁b"});
  CHECK(metaspace("first", "a b", true, "true") == Words{"▁a", "▁b"});
  CHECK(metaspace("first", "a b", false, "true") == Words{"a", "▁b"});
  CHECK(metaspace("never", "a b", true, "true") == Words{"a", "▁b"});
  CHECK(metaspace("always", " a  b", true, "true") ==
        Words{"▁a", "▁", "▁b"});  // one is there already
  CHECK(metaspace("always", "▁a b", true, "false") == Words{"▁a▁b"});
}

TEST_CASE("ByteLevel writes bytes as characters", "[pre_tokenizer]") {
  const std::string words = R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true})";
  CHECK(split(words, "It's é\n\n") == Words{"ĠIt", "'s", "ĠÃ©", "ĊĊ"});
  CHECK(split(words, " a") == Words{"Ġa"});
  CHECK(split(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})", "a b") ==
        Words{"aĠb"});
}

TEST_CASE("Unicode normalisation forms", "[normalizer]") {
  const std::string text = "ﬁ e\u0301 Å 한";
  CHECK(normalize(R"({"type": "NFC"})", text) == "ﬁ é Å 한");
  CHECK(normalize(R"({"type": "NFD"})", text) == "ﬁ e\u0301 A\u030A \u1112\u1161\u11AB");
  CHECK(normalize(R"({"type": "NFKC"})", text) == "fi é Å 한");
  CHECK(normalize(R"({"type": "NFKD"})", text) == "fi e\u0301 A\u030A \u1112\u1161\u11AB");
  CHECK(normalize(R"({"type": "NFC"})", "\u212B \u2126 \u0958") ==
        "Å Ω \u0915\u093C");  // exclusions
  CHECK(normalize(R"({"type": "NFKD"})", "\uFDFA").size() ==
        33);  // the longest decomposition: 18 characters
}

TEST_CASE("other normalizers", "[normalizer]") {
  CHECK(normalize(R"({"type": "Lowercase"})", "ÀİΣẞ") == "ài\u0307σß");
  CHECK(normalize(R"({"type": "StripAccents"})", "e\u0301a") == "ea");
  CHECK(normalize(R"({"type": "Strip", "strip_left": true, "strip_right": false})", " \u3000a ") ==
        "a ");
  CHECK(normalize(R"({"type": "Strip", "strip_left": false, "strip_right": true})", " a \u3000") ==
        " a");
  CHECK(normalize(R"({"type": "Strip", "strip_left": true, "strip_right": true})", " \n ").empty());
  CHECK(normalize(R"({"type": "Prepend", "prepend": "▁"})", "").empty());
  CHECK(normalize(R"({"type": "Replace", "pattern": {"Regex": "a*"}, "content": "-"})", "baa") ==
        "-b-");
  CHECK(normalize(R"({"type": "Replace", "pattern": {"String": "aa"}, "content": "x"})", "aaaaa") ==
        "xxa");
}

}  // namespace
}  // namespace tandem
