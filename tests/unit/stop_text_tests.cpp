#include <random>

#include "engine/stop_scanner.h"
#include "support/catch.h"

using tandem::StopScanner;

namespace {

struct Scan {
  std::string text;
  bool stopped = false;
  size_t pieces_read = 0;  ///< up to the one that completed the stop string
};

Scan scan(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopScanner scanner(stops);
  Scan result;
  for (const std::string& piece : pieces) {
    result.text += scanner.push(piece);
    ++result.pieces_read;
    if (scanner.stopped()) break;
  }
  result.stopped = scanner.stopped();
  result.text += scanner.finish();
  return result;
}

/// What the header promises, by trying every end and every stop string.
Scan scan_slowly(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (end >= stop.size() && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true, 0};
  }
  return {text, false, 0};
}

}  // namespace

TEST_CASE("A stop string ends the text before itself") {
  CHECK(scan({"\n\n"}, {"a\n\nb"}).text == "a");
  CHECK(scan({"stop"}, {"no st", "o", "p here"}).text == "no ");
  CHECK(scan({"stop"}, {"no st", "o", "p here"}).pieces_read == 3);
  CHECK_FALSE(scan({"stop"}, {"no sto"}).stopped);
  CHECK(scan({"stop"}, {"no sto"}).text == "no sto");
  CHECK(scan({}, {"a", "b"}).text == "ab");
  CHECK(scan({"aab"}, {"aaa", "ab"}).text == "aa");
}

TEST_CASE("Text that could still become a stop string is held back, nothing else") {
  StopScanner scanner({"abab!", "xyz"});
  CHECK(scanner.push("12ab") == "12");
  CHECK(scanner.push("ab") == "");
  CHECK(scanner.push("ab") == "ab");
  CHECK(scanner.push("x") == "abab");
  CHECK(scanner.push("-") == "x-");
  CHECK(scanner.push("xy") == "");
  CHECK(scanner.finish() == "xy");
}

TEST_CASE("The stop string that is completed first counts, then the longest") {
  CHECK(scan({"abcd", "bc"}, {"abcd"}).text == "a");
  CHECK(scan({"bc", "abc"}, {"abcd"}).text == "");
  CHECK(scan({"abc", "bc"}, {"xabcd"}).text == "x");
}

TEST_CASE("After a stop nothing more comes out") {
  StopScanner scanner({"."});
  CHECK(scanner.push("a.b.c") == "a");
  CHECK(scanner.push("more") == "");
  CHECK(scanner.finish() == "");
}

TEST_CASE("What is held back never cuts a character") {
  StopScanner scanner({"é!", "€uro"});
  CHECK(scanner.push("caf") == "caf");
  CHECK(scanner.push("é") == "");
  CHECK(scanner.push("è") == "éè");
  CHECK(scanner.push("€") == "");
  CHECK(scanner.push("5") == "€5");
}

TEST_CASE("The result does not depend on how the text is cut") {
  std::mt19937 random(7);
  const auto letters = [&](size_t count, unsigned alphabet) {
    std::string text;
    while (text.size() < count) text.push_back(static_cast<char>('a' + random() % alphabet));
    return text;
  };
  for (int trial = 0; trial < 3000; ++trial) {
    std::vector<std::string> stops;
    for (size_t n = random() % 4; n > 0; --n) stops.push_back(letters(1 + random() % 6, 2));
    const std::string text = letters(40, 2 + random() % 2);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      pieces.push_back(text.substr(at, random() % 5));
      at += pieces.back().size();
    }
    const Scan expected = scan_slowly(stops, text), actual = scan(stops, pieces);
    CAPTURE(text, stops);
    REQUIRE(actual.text == expected.text);
    REQUIRE(actual.stopped == expected.stopped);
  }
}

TEST_CASE("A long stop string costs time in proportion to the text") {
  const std::string stop(100000, 'a');
  StopScanner scanner({stop + "b"});
  std::string text;
  for (int i = 0; i < 10; ++i) text += scanner.push(stop);
  CHECK(text.size() == 9 * stop.size());
  CHECK_FALSE(scanner.stopped());
}
