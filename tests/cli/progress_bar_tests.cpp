#include "cli/progress_bar.h"

#include <string>

#include "core/size.h"
#include "support/catch.h"

using namespace tandem;
using namespace tandem::cli;

namespace {

/// Columns that UTF-8 text of single-width characters takes.
int columns_of(const std::string& text) {
  int columns = 0;
  for (const char c : text) columns += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return columns;
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("A bar fills with the bytes, and tells rate and time left") {
  const std::string half = progress_line({"main", 12 * kMiB, 24 * kMiB, 2.0}, 120);
  CHECK(half.find("loading main  █") == 0);
  CHECK(half.find("12.0 MiB of 24.0 MiB, 6.0 MiB/s, 2 s left") != std::string::npos);
  CHECK(count(half, "█") == count(half, "░"));
  const std::string begin = progress_line({"main", 0, 24 * kMiB, 0.0}, 120);
  CHECK(count(begin, "█") == 0);
  CHECK(begin.find("/s") == std::string::npos);
  CHECK(count(progress_line({"main", 24 * kMiB, 24 * kMiB, 4.0}, 120), "░") == 0);
}

TEST_CASE("A bar keeps to the width of the terminal") {
  const LoadState state{"draft", 3 * kMiB, 24 * kMiB, 1.0};
  for (int columns = 0; columns <= 200; ++columns) {
    CAPTURE(columns);
    CHECK(columns_of(progress_line(state, columns)) <= columns);
  }
  const std::string narrow = progress_line(state, 50);
  CHECK(count(narrow, "░") > 0);
  CHECK(narrow.find("/s") == std::string::npos);
  CHECK(progress_line(state, 40) == "loading draft  3.0 MiB of 24.0 MiB");
}

TEST_CASE("The line of a piece of work says how much is done and how long it will take") {
  const std::string line = work_line({"demo, K=4", 12, 320, 6.0, 12}, 80);
  CHECK_THAT(line, ContainsText("demo, K=4") && ContainsText("12 of 320, 2 min 34 s left"));
  // What a resumed run found done says nothing of the speed.
  CHECK_THAT(work_line({"demo", 300, 320, 10.0, 10}, 80), ContainsText("300 of 320, 20 s left"));
  CHECK_THAT(work_line({"demo", 12, 320, 0.0, 0}, 80),
             ContainsText("12 of 320") && !ContainsText("left"));
  CHECK(work_line({"demo", 12, 320, 6.0, 12}, 10) == "demo  12 o");
  CHECK(duration_text(44.1) == "45 s");
  CHECK(duration_text(125) == "2 min 5 s");
  CHECK(duration_text(12000) == "3 h 20 min");
}
