#include <cstdint>
#include <string>
#include <vector>

#include "core/size.h"
#include "engine/overhead_meter.h"
#include "plan/overheads.h"
#include "plan/planner.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

using namespace tandem;

namespace {

constexpr const char* kHardware = "a GPU";

/// A GPU whose driver takes memory behind the backend's back.
class DriverMemory final : public MemoryResource {
 public:
  void* allocate(size_t, std::string_view) override { return nullptr; }
  void release(void*, size_t) noexcept override {}
  DeviceId device() const override { return {DeviceKind::kCuda, 0}; }
  uint64_t capacity_bytes() const override { return 8 * kGiB; }
  uint64_t allocated_bytes() const override { return allocated; }
  uint64_t free_bytes() const override { return capacity_bytes() - allocated - driver; }

  uint64_t allocated = 0;
  uint64_t driver = 0;
};

PlannedModel model_of(const char* role) {
  PlannedModel model;
  model.role = role;
  model.config = ModelConfig::from_folder(std::string(TANDEM_SOURCE_DIR) + "/models/demo/" + role);
  model.formats = formats_all(WeightFormat::kBF16);
  model.max_rows = 32;
  model.max_logits_rows = 9;
  model.round_state_bytes = [](int) { return uint64_t{0}; };
  return model;
}

/// @param has_context the free bytes were read with a context of this process on the device
Plan plan_with(const OverheadHistory& history, bool has_context = false,
               uint64_t free_bytes = 8 * kGiB) {
  PlanRequest request;
  request.main = model_of("main");
  request.draft = model_of("draft");
  PlanDevice device;
  device.id = {DeviceKind::kCuda, 0};
  device.hardware = kHardware;
  device.capacity_bytes = 8 * kGiB;
  device.free_bytes = free_bytes;
  device.has_context = has_context;
  request.devices = {device};
  request.main_devices = {0};
  return make_plan(request, history);
}

uint64_t planned(const Plan& plan, const std::string& model, MemoryPurpose purpose) {
  for (const MemoryRow& row : plan.memory.devices.front().rows) {
    if (row.model == model && row.purpose == purpose) return row.bytes;
  }
  return 0;
}

}  // namespace

TEST_CASE("What a load took beside its arenas is what the next plan leaves for it") {
  const tandem::testing::TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "overheads.json";
  constexpr int kModels = 2;
  {
    OverheadHistory history(file);
    const Plan first = plan_with(history);
    CHECK(planned(first, "device", MemoryPurpose::kContext) == kAssumedCudaOverheads.context_bytes);
    CHECK(planned(first, "main", MemoryPurpose::kGraphs) == kAssumedCudaOverheads.graphs_bytes);

    DriverMemory memory;
    memory.driver = 400 * kMiB;  // a context that the free figure shows
    const DeviceReading before = read_device(memory);
    memory.allocated += 50 * kMiB;  // the arenas
    memory.driver += 30 * kMiB;
    const DeviceReading loaded = read_device(memory);
    memory.allocated += 6 * kMiB;  // scratch of the streams
    memory.driver += 10 * kMiB;
    record_overheads(history, kHardware, kModels,
                     measured_overheads(before, loaded, read_device(memory)));
  }
  const Plan second = plan_with(OverheadHistory(file));
  CHECK(planned(second, "device", MemoryPurpose::kContext) == 30 * kMiB);
  for (const char* model : {"draft", "main"}) {
    CHECK(planned(second, model, MemoryPurpose::kWorkspaces) == 3 * kMiB);
    CHECK(planned(second, model, MemoryPurpose::kGraphs) == 5 * kMiB);
  }
}

TEST_CASE("What cannot be told is not recorded") {
  const DeviceReading before{1000, 0}, loaded{900, 100}, warm{890, 105};
  OverheadHistory history;
  SECTION("others gave memory back during the load") {
    const DeviceReading roomier{950, 100};
    record_overheads(history, kHardware, 1, measured_overheads(before, roomier, {940, 105}));
    CHECK_FALSE(history.find({kHardware, MemoryPurpose::kContext, 1}));
    CHECK(history.find({kHardware, MemoryPurpose::kGraphs, 1}) == uint64_t{5});
  }
  SECTION("others gave memory back during the first rounds") {
    record_overheads(history, kHardware, 1, measured_overheads(before, {890, 100}, {950, 105}));
    CHECK(history.find({kHardware, MemoryPurpose::kContext, 1}) == uint64_t{10});
    CHECK_FALSE(history.find({kHardware, MemoryPurpose::kGraphs, 1}));
  }
  SECTION("the context took nothing more: that can be told") {
    record_overheads(history, kHardware, 1, measured_overheads(before, loaded, warm));
    CHECK(history.find({kHardware, MemoryPurpose::kContext, 1}) == uint64_t{0});
  }
}

TEST_CASE("A context that is there already is counted once") {
  constexpr uint64_t kTaken = 527 * kMiB, kGrowth = 6 * kMiB;
  OverheadHistory history;
  DriverMemory memory;
  memory.driver = kTaken;  // listing the devices made the context
  const auto plan = [&] {
    return plan_with(history, /*has_context=*/true, memory.free_bytes()).memory.devices.front();
  };
  const auto bytes_of = [](const DevicePlan& device, MemoryPurpose purpose) {
    uint64_t sum = 0;
    for (const MemoryRow& row : device.rows) sum += row.purpose == purpose ? row.bytes : 0;
    return sum;
  };

  const DevicePlan first = plan();
  CHECK(bytes_of(first, MemoryPurpose::kInUse) == kTaken);
  CHECK(bytes_of(first, MemoryPurpose::kContext) == kAssumedContextGrowthBytes);

  const DeviceReading before = read_device(memory);
  memory.allocated += kGiB;
  memory.driver += kGrowth;
  const DeviceReading loaded = read_device(memory);
  record_overheads(history, kHardware, 2, measured_overheads(before, loaded, loaded));
  memory.allocated = 0;  // the next process
  memory.driver = kTaken;
  const DevicePlan second = plan();
  CHECK(bytes_of(second, MemoryPurpose::kInUse) == kTaken);
  CHECK(bytes_of(second, MemoryPurpose::kContext) == kGrowth);
  // What the driver holds in the end is planned to the byte.
  CHECK(bytes_of(second, MemoryPurpose::kInUse) + bytes_of(second, MemoryPurpose::kContext) ==
        kTaken + kGrowth);
  for (const DevicePlan& device : {first, second}) {
    uint64_t sum = device.reserve_bytes + device.free_bytes;
    for (const MemoryRow& row : device.rows) sum += row.bytes;
    CHECK(sum == device.capacity_bytes);
  }

  // A device that nobody has looked at, as one planned by its size, still needs the whole context.
  const DevicePlan elsewhere = plan_with(OverheadHistory()).memory.devices.front();
  CHECK(bytes_of(elsewhere, MemoryPurpose::kContext) == kAssumedCudaOverheads.context_bytes);
}

TEST_CASE("A model's part of what was measured for several is rounded up") {
  CHECK(share_of_model(0, 2) == 0);
  CHECK(share_of_model(7, 2) == 4);
  CHECK(share_of_model(7, 1) == 7);
}
