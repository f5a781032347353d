#include "engine/memory_audit.h"

#include <string>
#include <vector>

#include "support/catch.h"

using namespace tandem;

namespace {

using Purpose = MemoryPurpose;

MemoryPlan plan_of(std::vector<MemoryRow> rows) {
  MemoryPlan plan;
  plan.devices.push_back({"cuda:0", 0, 0, 0, std::move(rows)});
  return plan;
}

const std::vector<MemoryRow> kRows = {{"device", Purpose::kContext, 1000},
                                      {"main", Purpose::kWeights, 300},
                                      {"main", Purpose::kKvCache, 200},
                                      {"main", Purpose::kGraphs, 50},
                                      {"other", Purpose::kInUse, 7}};

MemoryAudit filled(uint64_t weights, uint64_t allocated) {
  MemoryAudit audit(plan_of(kRows));
  audit.add("cuda:0", "main", Purpose::kWeights, weights);
  audit.add("cuda:0", "main", Purpose::kKvCache, 200);
  audit.add("cuda:0", "device", Purpose::kContext, 80);
  audit.add_device("cuda:0", allocated);
  return audit;
}

}  // namespace

TEST_CASE("Arenas that agree with the plan leave no difference, whatever was measured") {
  const MemoryAudit audit = filled(300, 500);
  CHECK(audit.difference().empty());
  REQUIRE(audit.uses().size() == 4);  // what others took is no row of the load
  CHECK(audit.uses().front().planned_bytes == 1000);
  CHECK(audit.uses().front().actual_bytes == 80);
}

TEST_CASE("A row that took less or more than planned is named") {
  CHECK(filled(299, 500).difference() ==
        "cuda:0: main weights was planned with 300 bytes and took 299");
  CHECK(filled(301, 500).difference() ==
        "cuda:0: main weights was planned with 300 bytes and took 301");
}

TEST_CASE("A device that handed out what no row tells of is named") {
  CHECK(filled(300, 501).difference() ==
        "cuda:0: the load was planned with 500 bytes and took 501");
  CHECK(filled(300, 499).difference() ==
        "cuda:0: the load was planned with 500 bytes and took 499");
}
