// Cost tables as files.

#include <fstream>

#include "support/catch.h"
#include "support/temporary_folder.h"
#include "tandem/error.h"
#include "tandem/speedup.h"

using namespace tandem;

namespace {

std::string error_of(const std::string& text) {
  try {
    CostTable::from_json(text, "costs.json");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("A cost table reads back as it was written") {
  CostTable costs;
  costs.verify_seconds = {0.000252, 0.000282, 1.0 / 3};
  costs.draft_first_seconds = 0.041;
  costs.draft_step_seconds = 1e-9;
  costs.draft_catch_up_seconds = 0.004;
  CHECK(CostTable::from_json(costs.to_json()) == costs);
  const CostTable verify_alone = CostTable::from_json(R"({"verify_seconds": [1]})");
  CHECK(verify_alone.max_drafts() == 0);
  CHECK(verify_alone.draft_first_seconds == 0.0);

  const testing::TemporaryFolder folder;
  std::ofstream(folder.path() / "costs.json") << costs.to_json();
  CHECK(CostTable::from_file(folder.path() / "costs.json") == costs);
}

TEST_CASE("What is no cost table is refused in one line") {
  CHECK_THAT(error_of("[1, 2]"), ContainsText("costs.json: holds a list; expected an object"));
  CHECK_THAT(error_of("{"), ContainsText("costs.json:1:2: not valid JSON"));
  CHECK_THAT(error_of("{}"), ContainsText("\"verify_seconds\" must be a list of 1 to 16 numbers"));
  CHECK_THAT(error_of(R"({"verify_seconds": []})"), ContainsText("must be a list"));
  CHECK_THAT(error_of(R"({"verify_seconds": 1})"), ContainsText("must be a list"));
  CHECK_THAT(error_of(R"({"verify_seconds": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]})"),
             ContainsText("must be a list"));
  CHECK_THAT(error_of(R"({"verify_seconds": [1, "2"]})"),
             ContainsText("holds \"2\"; expected seconds"));
  CHECK_THAT(error_of(R"({"verify_seconds": [0]})"), ContainsText("expected numbers above 0"));
  CHECK_THAT(error_of(R"({"verify_seconds": [1e300]})"), ContainsText("0 to 1000000"));
  CHECK_THAT(error_of(R"({"verify_seconds": [1], "draft_step_seconds": -1})"),
             ContainsText("\"draft_step_seconds\" holds -1; expected seconds"));
  CHECK_THAT(error_of(R"({"verify_seconds": [1], "draft_step": 1})"),
             ContainsText("unknown key \"draft_step\"; the nearest known key is "
                          "\"draft_step_seconds\""));
  CHECK_THAT(error_of(R"({"verify_seconds": [1], "verify_seconds": [2]})"),
             ContainsText("stands twice"));
  CHECK_THROWS_AS(CostTable::from_file("no/such/file.json"), ConfigError);
}
