#include "plan/overhead_history.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "support/catch.h"
#include "support/temporary_folder.h"
#include "tandem/error.h"

using namespace tandem;
using tandem::testing::TemporaryFolder;

namespace {

const OverheadHistory::Key kContextKey{"Some GPU", MemoryPurpose::kContext, 1};
const OverheadHistory::Key kRanksKey{"Some GPU", MemoryPurpose::kCommunicator, 4, Split::kTensor};

}  // namespace

TEST_CASE("the history remembers the largest of the last measurements, across objects") {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "deep" / "overheads.json";
  OverheadHistory history(file);
  CHECK_FALSE(history.find(kContextKey));
  history.record(kContextKey, 700);
  history.record(kContextKey, 500);
  history.record(kRanksKey, 9);
  CHECK(history.find(kContextKey) == 700);

  OverheadHistory other(file);
  CHECK(other.find(kContextKey) == 700);
  CHECK(other.find(kRanksKey) == 9);
  CHECK_FALSE(other.find({"Some GPU", MemoryPurpose::kCommunicator, 2, Split::kTensor}));
  CHECK_FALSE(other.find({"Some GPU", MemoryPurpose::kCommunicator, 4, Split::kLayer}));
  CHECK_FALSE(other.find({"Other GPU", MemoryPurpose::kContext, 1}));

  for (size_t i = 0; i < OverheadHistory::kKeptMeasurements; ++i) other.record(kContextKey, 600);
  CHECK(OverheadHistory(file).find(kContextKey) == 600);  // the 700 is too long ago

  history.record(kRanksKey, 10);  // reads again what the other wrote
  CHECK(OverheadHistory(file).find(kContextKey) == 600);

  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(file.parent_path()))
    ++files;
  CHECK(files == 1);  // no temporary file stays behind
}

TEST_CASE("a damaged history is ignored, and replaced by the next measurement") {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "overheads.json";
  const std::string text = GENERATE(
      as<std::string>{}, "", "{", "[]", "null", R"({"version":1,"overheads":[]})",
      R"({"version":"2","overheads":[]})", R"({"version":2})",
      R"({"version":2,"overheads":[{"hardware":"x"}]})",
      R"({"version":2,"overheads":[{"hardware":"x","purpose":"nonsense","ranks":1,"split":"none","bytes":[1]}]})",
      R"({"version":2,"overheads":[{"hardware":"x","purpose":"context","ranks":1,"bytes":[1]}]})",
      R"({"version":2,"overheads":[{"hardware":"x","purpose":"context","ranks":1,"split":"both","bytes":[1]}]})",
      R"({"version":2,"overheads":[{"hardware":"x","purpose":"context","ranks":1,"split":"none","bytes":[]}]})",
      R"({"version":2,"overheads":[{"hardware":"x","purpose":"context","ranks":1,"split":"none","bytes":[-1]}]})",
      R"({"version":2,"overheads":[{"hardware":"x","purpose":"context","ranks":1,"split":"none","bytes":[1.5]}]})",
      R"({"version":2,"overheads":[{"hardware":"Some GPU","purpose":"context","ranks":1,"split":"none","bytes":[18446744073709551615]}]})",
      R"({"version":2,"overheads":[{"hardware":"Some GPU","purpose":"context","ranks":1,"split":"none","bytes":[1099511627777]}]})",
      "\xff\xfe");
  CAPTURE(text);
  std::ofstream(file, std::ios::binary) << text;
  OverheadHistory history(file);
  CHECK_FALSE(history.find(kContextKey));
  history.record(kContextKey, 5);
  CHECK(OverheadHistory(file).find(kContextKey) == 5);
}

TEST_CASE("a history goes to another process as text") {
  OverheadHistory history;
  history.record(kContextKey, 5);
  history.record(kContextKey, 7);
  const OverheadHistory there = OverheadHistory::from_json(history.to_json());
  CHECK(there.find(kContextKey) == 7);
  CHECK(there.to_json() == history.to_json());
  CHECK_THROWS_AS(OverheadHistory::from_json("{}"), Error);
  CHECK_THROWS_AS(OverheadHistory::from_json("nothing"), Error);
}

TEST_CASE("a history that cannot be written goes on in memory") {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "file") << "x";
  OverheadHistory history(folder.path() / "file" / "overheads.json");
  CHECK_NOTHROW(history.record(kContextKey, 5));
  CHECK(history.find(kContextKey) == 5);
  OverheadHistory without_file;
  without_file.record(kContextKey, 6);
  CHECK(without_file.find(kContextKey) == 6);
}
