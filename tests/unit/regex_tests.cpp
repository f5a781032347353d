#include "tokenizer/regex.h"

#include <string>
#include <vector>

#include "support/catch.h"
#include "tokenizer/regex_translation.h"
#include "tokenizer/utf8.h"

// What is expected here is what Oniguruma, through Hugging Face's tokenizers, was seen to do.

namespace tandem {
namespace {

using Words = std::vector<std::string>;

Words matches(std::string_view pattern, std::string_view text) {
  std::vector<TextRange> ranges;
  Regex(pattern).find_all(text, ranges);
  Words words;
  for (const TextRange& range : ranges)
    words.emplace_back(text.substr(range.begin, range.end - range.begin));
  return words;
}

TEST_CASE("white space is Unicode's White_Space", "[regex]") {
  const std::string text = "a\t\u00A0\u0085\u2003\u3000\u180E\u200B\u001C";
  CHECK(matches("\\s", text) == Words{"\t", "\u00A0", "\u0085", "\u2003", "\u3000"});
  CHECK(matches("[^\\s]", text) == Words{"a", "\u180E", "\u200B", "\u001C"});
  CHECK(matches("[\\S]", text) == matches("\\S", text));
  CHECK(matches("[^\\S\\t]", text) == Words{"\u00A0", "\u0085", "\u2003", "\u3000"});
}

TEST_CASE("escapes that mean something else to PCRE2", "[regex]") {
  CHECK(matches("\\h", "0g F\t") == Words{"0", "F"});  // hexadecimal digits
  CHECK(matches("[\\H]", "0g F") == Words{"g", " "});
  CHECK(matches("\\v", "\v\n") == Words{"\v"});
  CHECK(matches("\\u00e9|\\x{e9}", "éé") == Words{"é", "é"});
  CHECK(matches("\\w", "e\u0301_²a") == Words{"e", "\u0301", "_", "²", "a"});
  CHECK(matches("[\\w]", "e\u0301_²a") == Words{"e", "\u0301", "_", "a"});
  CHECK(matches("\\b.", "é\u0301 a") == Words{"é", " ", "a"});
}

TEST_CASE("properties go by their names", "[regex]") {
  CHECK(matches("\\p{Letter}", "a1é") == Words{"a", "é"});
  CHECK(matches("\\p{Uppercase_Letter}|\\p{decimal number}", "aB1") == Words{"B", "1"});
  CHECK(matches("\\p{^L}", "a1") == Words{"1"});
  CHECK(matches("\\P{L}", "a1") == Words{"1"});
  CHECK(matches("\\p{Han}", "漢、か") == Words{"漢"});  // Script, not Script_Extensions
  CHECK(matches("\\p{Punct}", "!+") == Words{"!"});
  CHECK(matches("[[:punct:]]", "!+") == Words{"!", "+"});
  CHECK(matches("[[:^alpha:]]", "a1") == Words{"1"});
}

TEST_CASE("character classes nest and intersect", "[regex]") {
  CHECK(matches("[\\p{L}&&[^\\p{Han}]]+", "ab漢cd") == Words{"ab", "cd"});
  CHECK(matches("[a-z&&[^aeiou]]", "abc e") == Words{"b", "c"});
  CHECK(matches("[^a-c&&b-d]", "abcd") == Words{"a", "d"});
  CHECK(matches("[a[bc]]+", "abcd") == Words{"abc"});
  CHECK(matches("[^a[bc]]+", "abcd\n") == Words{"d\n"});
  CHECK(matches("[]a]", "a]") == Words{"a", "]"});
  CHECK(matches("[\\s-]", "a- ") == Words{"-", " "});
  CHECK(matches("[+--]", "+,-.") == Words{"+", ",", "-"});
  CHECK(matches("[a^&]", "^&") == Words{"^", "&"});
}

TEST_CASE("quantifiers stack", "[regex]") {
  CHECK(matches("a{1,2}+", "aaaaa") == Words{"aaaaa"});  // repeats, is not possessive
  CHECK(matches("a++a|b", "aab") == Words{"b"});         // possessive
  CHECK(matches("a{2}?", "aaa") == Words{"aa", ""});     // optional, not lazy
  CHECK(matches("a{1,2}?", "aa") == Words{"a", "a"});    // lazy
  CHECK(matches("a{,2}b", "aaab") == Words{"aab"});
  CHECK(matches("x{a}|{,}", "x{a}{,}") == Words{"x{a}", "{,}"});
}

TEST_CASE("flags", "[regex]") {
  CHECK(matches("(?i:'s)|t", "'S'sT") == Words{"'S", "'s"});
  CHECK(matches("a.b", "a\nb").empty());
  CHECK(matches("(?m:a.b)", "a\nb") == Words{"a\nb"});
  CHECK(matches("a(?i)b|c", "aB C ac") == Words{"aB", "ac"});  // the flag reaches over |
  CHECK(matches("^.", "a\nb") == Words{"a", "b"});
}

TEST_CASE("matches that are empty do not touch the match before them", "[regex]") {
  CHECK(matches("a*", "baac") == Words{"", "aa", ""});
  CHECK(matches("", "é") == Words{"", ""});
  CHECK(matches("x", "").empty());
}

TEST_CASE("PCRE2's auto-possessification does not lose matches", "[regex]") {
  CHECK(matches("\\p{N}+(?:ab|c)?+\\d", "10") == Words{"10"});
}

TEST_CASE("what has no counterpart is refused", "[regex]") {
  for (const char* pattern :
       {"(?~a)",    "(?x) a",     "(?s).", "\\Qa\\E", "\\N",   "\\cA",  "\\o{7}", "\\xE4",
        "\\p{IsL}", "[[:nope:]]", "[",     "[]",      "(",     ")",     "a)",     "*",
        "(?",       "(?<n",       "\\",    "\\p",     "\\p{L", "\\u12", "\\x{}",  "\\k<n",
        "(?#",      "[a-",        "[a&&",  "(*FAIL)", "\\1"}) {
    CAPTURE(pattern);
    CHECK_THROWS_AS(Regex(pattern), RegexError);
  }
  CHECK_THROWS_AS(Regex(std::string(1000, '(') + std::string(1000, ')')), RegexError);
  CHECK_THROWS_AS(Regex(std::string(1000, '[') + "a" + std::string(1000, ']')), RegexError);
  CHECK_THROWS_AS(Regex(std::string(100'000, 'a')), RegexError);
}

TEST_CASE("invalid UTF-8 is replaced part by part", "[utf8]") {
  const auto lossy = [](std::string_view bytes) {
    std::string text;
    CHECK(utf8::append_lossy(text, bytes, true) == bytes.size());
    return text;
  };
  CHECK(lossy("a\xE2\x96z") == "a\uFFFDz");
  CHECK(lossy("\xF0\x9F\x98") == "\uFFFD");
  CHECK(lossy("\xE2\xE2\x96\x81") == "\uFFFD▁");
  CHECK(lossy("\xED\xA0\x80") == "\uFFFD\uFFFD\uFFFD");  // a surrogate: no byte of it begins well
  CHECK(lossy("\xF4\x90\x80\x80") == "\uFFFD\uFFFD\uFFFD\uFFFD");
  CHECK(lossy("\xC0\xAF\xFF") == "\uFFFD\uFFFD\uFFFD");
  std::string text;
  CHECK(utf8::append_lossy(text, "a\xF0\x9F", false) == 1);
  CHECK(text == "a");
}

}  // namespace
}  // namespace tandem
