#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/size.h"
#include "plan/placement.h"
#include "plan/planner.h"
#include "random_plans.h"
#include "support/catch.h"
#include "tandem/error.h"

using namespace tandem;
using tandem::testing::shape;

namespace {

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

/// The best least-left over all ways to cut the layers, by trying them all.
int64_t best_spare(const std::vector<uint64_t>& layers, const std::vector<int64_t>& rooms,
                   size_t room, size_t begin) {
  const size_t rest = rooms.size() - room - 1;
  int64_t best = std::numeric_limits<int64_t>::min();
  int64_t left = rooms[room];
  for (size_t end = begin + 1; end + rest <= layers.size(); ++end) {
    left -= static_cast<int64_t>(layers[end - 1]);
    if (rest == 0 && end < layers.size()) continue;
    best =
        std::max(best, rest == 0 ? left : std::min(left, best_spare(layers, rooms, room + 1, end)));
  }
  return best;
}

PlannedModel plain(const char* role, const ModelConfig& config) {
  PlannedModel model;
  model.role = role;
  model.config = config;
  model.formats = formats_all(WeightFormat::kBF16);
  model.max_rows = 32;
  model.max_logits_rows = 9;
  model.round_state_bytes = [](int) { return uint64_t{4096}; };
  return model;
}

PlanRequest on_devices(const std::vector<uint64_t>& capacities) {
  PlanRequest request;
  request.main = plain("main", shape(8, 8, 4, 64, 1536, 6144, 2048));
  request.draft = plain("draft", shape(2, 2, 2, 64, 352, 6144, 1024));
  for (size_t i = 0; i < capacities.size(); ++i) {
    PlanDevice device;
    device.id = {DeviceKind::kCpu, static_cast<int>(i)};
    device.capacity_bytes = device.free_bytes = capacities[i];
    request.devices.push_back(device);
    request.main_devices.push_back(i);
  }
  request.choose_devices = true;
  return request;
}

const OverheadHistory kNothingMeasured;

}  // namespace

TEST_CASE("heads stay beside their kv heads, however they divide") {
  const ModelConfig config = shape(2, 8, 4, 16, 100, 60, 64);
  const Placement three = tensor_placement(config, 3);
  CHECK(three.shards[0].heads == Range{0, 4});
  CHECK(three.shards[0].kv_heads == Range{0, 2});
  CHECK(three.shards[1].heads == Range{4, 6});
  CHECK(three.shards[2].kv_heads == Range{3, 4});
  CHECK(three.shards[2].mlp == Range{67, 100});  // too few columns for whole tiles: single ones
  CHECK(three.leader() == 0);

  const Placement eight = tensor_placement(config, 8);  // each kv head on two ranks
  for (int rank = 0; rank < 8; ++rank) {
    CHECK(eight.shards[static_cast<size_t>(rank)].heads == Range{rank, rank + 1});
    CHECK(eight.shards[static_cast<size_t>(rank)].kv_heads == Range{rank / 2, rank / 2 + 1});
  }
  const Placement five =
      tensor_placement(config, 5);  // the first kv head on two ranks, the others on one
  CHECK(five.shards[1].heads == Range{1, 2});
  CHECK(five.shards[1].kv_heads == Range{0, 1});
  CHECK(five.shards[2].heads == Range{2, 4});

  const Placement odd = tensor_placement(shape(2, 9, 1, 16, 384, 60, 64), 2);
  CHECK(odd.shards[0].heads == Range{0, 5});
  CHECK(odd.shards[1].heads == Range{5, 9});
  CHECK(odd.shards[0].mlp == Range{0, 256});  // whole tiles
}

TEST_CASE("a split over too many devices is refused with the reason") {
  const ModelConfig config = shape(3, 2, 1, 16, 100, 60, 64);
  CHECK(message_of([&] { tensor_placement(config, 3); }) ==
        "test/config.json: a tensor split over 3 devices needs at least as many query heads, the "
        "model has 2");
  CHECK(tensor_split_obstacle(shape(3, 8, 1, 16, 2, 60, 64), 3).value().find("MLP columns") !=
        std::string::npos);
  CHECK(tensor_split_obstacle(shape(3, 8, 1, 16, 100, 6, 64), 4).value().find("vocabulary") !=
        std::string::npos);
  CHECK(layer_split_obstacle(config, 4).value().find("layers, the model has 3") !=
        std::string::npos);

  PlanRequest request = on_devices(std::vector<uint64_t>(9, kGiB));
  request.choose_devices = false;
  CHECK(message_of([&] { make_plan(request, kNothingMeasured); }).find("query heads") !=
        std::string::npos);
  request.split = SplitChoice::kLayer;
  CHECK(message_of([&] { make_plan(request, kNothingMeasured); }).find("layers") !=
        std::string::npos);

  request = on_devices(std::vector<uint64_t>(3, kGiB));
  request.main.config.num_heads = request.main.config.num_kv_heads = 2;
  request.main.config.hidden_size = 128;
  request.choose_devices = false;
  CHECK(make_plan(request, kNothingMeasured).main.placement.split ==
        Split::kLayer);  // "auto" falls to layers
  request.split = SplitChoice::kTensor;
  CHECK_THROWS_AS(make_plan(request, kNothingMeasured), ConfigError);
}

TEST_CASE("layers are balanced as well as any cut could") {
  std::mt19937 engine(7);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(engine);
  };
  for (int i = 0; i < 500; ++i) {
    std::vector<uint64_t> layers(static_cast<size_t>(draw(1, 9)));
    for (uint64_t& bytes : layers) bytes = static_cast<uint64_t>(draw(1, 20));
    std::vector<int64_t> rooms(
        static_cast<size_t>(draw(1, static_cast<int>(std::min<size_t>(4, layers.size())))));
    for (int64_t& room : rooms) room = draw(-10, 120);

    const std::vector<Range> runs = balance_layers(layers, rooms);
    REQUIRE(runs.size() == rooms.size());
    int64_t spare = std::numeric_limits<int64_t>::max();
    for (size_t room = 0; room < rooms.size(); ++room) {
      int64_t left = rooms[room];
      for (int64_t layer = runs[room].begin; layer < runs[room].end; ++layer) {
        left -= static_cast<int64_t>(layers[static_cast<size_t>(layer)]);
      }
      spare = std::min(spare, left);
    }
    REQUIRE(spare == best_spare(layers, rooms, 0, 0));
    REQUIRE(layers_fit(layers, rooms) == (spare >= 0));
  }
  const std::vector<Range> even =
      balance_layers(std::vector<uint64_t>(33, 10), std::vector<int64_t>(4, 1000));
  for (const Range& run : even) CHECK(run.size() >= 8);
}

TEST_CASE("the draft comes first, the main model takes the fewest devices") {
  const PlanRequest roomy = on_devices({kGiB, kGiB});
  const Plan one = make_plan(roomy, kNothingMeasured);
  CHECK(one.memory.fits);
  CHECK(one.main.devices == std::vector<size_t>{0});
  CHECK(one.draft->devices == std::vector<size_t>{0});
  CHECK(one.memory.max_model_len == 2048);
  CHECK(one.draft->limits.max_positions == 1024);
  CHECK(one.memory.devices[0].rows.front().model == "draft");
  CHECK(one.memory.devices[1].rows.empty());
  CHECK(one.memory.devices[1].free_bytes == kGiB);

  const uint64_t needed = one.memory.devices[0].bytes_of("");
  const Plan two = make_plan(on_devices({needed - 1, needed - 1}), kNothingMeasured);
  CHECK(two.memory.fits);
  CHECK(two.main.placement.ranks() == 2);
  CHECK(two.memory.max_model_len == 2048);

  const Plan exact = make_plan(on_devices({needed}), kNothingMeasured);
  CHECK(exact.memory.fits);
  CHECK(exact.memory.devices[0].free_bytes == 0);
  PlanRequest short_by_one = on_devices({needed - 1});
  short_by_one.max_model_len = 2048;
  const Plan misfit = make_plan(short_by_one, kNothingMeasured);
  REQUIRE(misfit.memory.shortfall);
  CHECK(misfit.memory.shortfall->bytes == 1);
  CHECK(misfit.memory.shortfall->device == "cpu:0");
  CHECK(misfit.memory.shortfall->max_model_len > 1900);
  CHECK(misfit.memory.shortfall->message.find("cpu:0 is 1 B short") != std::string::npos);
}

TEST_CASE("a layer split follows the room that each device has") {
  const uint64_t needed =
      make_plan(on_devices({kGiB}), kNothingMeasured).memory.devices[0].bytes_of("");
  PlanRequest request = on_devices({needed * 3 / 4, needed * 3 / 8});
  request.split = SplitChoice::kLayer;
  const Plan plan = make_plan(request, kNothingMeasured);
  REQUIRE(plan.memory.fits);
  REQUIRE(plan.main.placement.split == Split::kLayer);
  // The roomy device leads: it has the head, the draft, and most of the layers.
  CHECK(plan.main.devices == std::vector<size_t>{1, 0});
  CHECK(plan.draft->devices == std::vector<size_t>{0});
  CHECK(plan.main.placement.shards[1].layers.size() > plan.main.placement.shards[0].layers.size());
}

TEST_CASE("reserve and limit are honoured") {
  PlanRequest request = on_devices({kGiB});
  request.devices[0].free_bytes = kGiB - 100 * kMiB;
  request.devices[0].reserve_bytes = 200 * kMiB;
  request.devices[0].limit_bytes = 500 * kMiB;
  const Plan plan = make_plan(request, kNothingMeasured);
  REQUIRE(plan.memory.fits);
  const DevicePlan& device = plan.memory.devices[0];
  CHECK(device.reserve_bytes == 200 * kMiB);
  const auto has = [&](MemoryPurpose purpose, uint64_t bytes) {
    return std::count(device.rows.begin(), device.rows.end(), MemoryRow{"other", purpose, bytes}) ==
           1;
  };
  CHECK(has(MemoryPurpose::kInUse, 100 * kMiB));
  CHECK(has(MemoryPurpose::kBeyondLimit, (1024 - 100 - 200 - 500) * kMiB));
  CHECK(device.free_bytes + device.bytes_of("") == 500 * kMiB);

  request.devices[0].limit_bytes =
      std::numeric_limits<uint64_t>::max();  // people may write anything
  CHECK(make_plan(request, kNothingMeasured).memory.fits);
  request.devices[0].reserve_bytes = std::numeric_limits<uint64_t>::max();
  CHECK_FALSE(make_plan(request, kNothingMeasured).memory.fits);
}

TEST_CASE("a reserve beyond the free memory leaves nothing, and the sums still add up") {
  PlanRequest request = on_devices({kGiB});
  const uint64_t needed = make_plan(request, kNothingMeasured).memory.devices[0].bytes_of("");
  request.max_model_len = 2048;
  request.devices[0].free_bytes = 100 * kMiB;
  request.devices[0].reserve_bytes = 200 * kMiB;
  const Plan plan = make_plan(request, kNothingMeasured);
  REQUIRE(plan.memory.shortfall);
  CHECK(plan.memory.shortfall->bytes == needed);
  CAPTURE(plan.memory.shortfall->message);
  CHECK(plan.memory.shortfall->message.find(
            "0 B to be had of 1.00 GiB: the reserve of 200.0 MiB and the 924.0 MiB in use leave "
            "0 B)") != std::string::npos);
  uint64_t sum = plan.memory.devices[0].reserve_bytes;
  for (const MemoryRow& row : plan.memory.devices[0].rows) sum += row.bytes;
  CHECK(sum - kGiB == needed);  // what the table says is missing
}

TEST_CASE("requests that contradict themselves are refused") {
  PlanRequest request = on_devices({kGiB});
  request.max_model_len = 2049;
  CHECK(message_of([&] { make_plan(request, kNothingMeasured); }).find("max_model_len: 2049") !=
        std::string::npos);
  request.max_model_len = 0;
  CHECK_THROWS_AS(make_plan(request, kNothingMeasured), ConfigError);
  request = on_devices({kGiB, kGiB});
  request.devices[1].id.kind = DeviceKind::kCuda;
  CHECK(message_of([&] { make_plan(request, kNothingMeasured); }).find("one kind") !=
        std::string::npos);
  CHECK_THROWS_AS(make_plan(on_devices({}), kNothingMeasured), ConfigError);
}

TEST_CASE("a head size that GPUs have no kernel for is refused by name") {
  for (const bool of_draft : {false, true}) {
    PlanRequest request = on_devices({kGiB});
    ModelConfig& config = (of_draft ? *request.draft : request.main).config;
    config.head_dim = 80;
    config.source = "odd/config.json";
    CHECK(make_plan(request, kNothingMeasured).memory.fits);  // the CPU takes any
    request.devices[0].id.kind = DeviceKind::kCuda;
    CHECK_THROWS_WITH(make_plan(request, kNothingMeasured),
                      "odd/config.json: head_dim is 80; attention on a GPU takes 32, 64, 96, 128, "
                      "256: use device 'cpu' for this model");
    CHECK_THROWS_AS(make_plan(request, kNothingMeasured), ModelError);
  }
}

TEST_CASE("what attention works in is planned where it exceeds what products do") {
  PlanRequest request = on_devices({200 * kGiB});
  request.draft.reset();
  request.main = plain("main", shape(4, 64, 8, 128, 1024, 6144, 131072));
  request.main.formats = formats_all(WeightFormat::kInt4Group128);
  request.devices[0].id.kind = DeviceKind::kCuda;
  const auto activations = [&](int context) {
    request.max_model_len = context;
    const Plan plan = make_plan(request, kNothingMeasured);
    for (const MemoryRow& row : plan.memory.devices[0].rows) {
      if (row.purpose == MemoryPurpose::kActivations) return row.bytes;
    }
    return uint64_t{0};
  };
  // 16 rows, 64 heads, 256 slots a part, 128 sums, a maximum and a total.
  constexpr uint64_t kPart = uint64_t{16} * 64 * (128 + 2) * sizeof(float);
  CHECK(activations(131072) - activations(256) == (131072 / 256 - 1) * kPart);
}

TEST_CASE("a GPU's overheads are assumed until they were measured") {
  OverheadHistory history;
  const std::string gpu = "GPU";
  constexpr Split kTensor = Split::kTensor, kLayer = Split::kLayer;
  const auto expected = [&](int ranks, Split split) {
    return expected_overheads(DeviceKind::kCuda, gpu, ranks, split, history);
  };
  CHECK(expected_overheads(DeviceKind::kCpu, gpu, 4, kTensor, history) == Overheads{});
  CHECK(expected(1, Split::kNone) == kAssumedCudaOverheads);
  for (const Split split : {kTensor, kLayer}) {
    Overheads assumed = kAssumedCudaOverheads;
    assumed.communicator_bytes = assumed_communicator_bytes(split, 4);
    CHECK(assumed.communicator_bytes >= assumed_communicator_bytes(split, 2));
    CHECK(expected(4, split) == assumed);
  }
  // A tensor split's sums need more channels than what a layer split hands on.
  CHECK(assumed_communicator_bytes(kTensor, 2) > assumed_communicator_bytes(kLayer, 2));
  history.record({gpu, MemoryPurpose::kContext}, 7);
  history.record({gpu, MemoryPurpose::kCommunicator, 4, kTensor}, 9);
  CHECK(expected(4, kTensor).context_bytes == 7);
  CHECK(expected(4, kTensor).communicator_bytes == 9);
  CHECK(expected(4, kLayer).communicator_bytes == assumed_communicator_bytes(kLayer, 4));
  CHECK(expected(2, kTensor).communicator_bytes == assumed_communicator_bytes(kTensor, 2));
  CHECK(expected(1, Split::kNone).communicator_bytes == 0);
}

TEST_CASE("the cost ratio counts what a pass reads") {
  PlanRequest request = on_devices({kGiB, kGiB, kGiB, kGiB});
  request.draft->config.tie_word_embeddings = true;
  const Plan one = make_plan(request, kNothingMeasured);
  const ModelConfig& main = request.main.config;
  const auto table =
      static_cast<uint64_t>(main.vocab_size) * static_cast<uint64_t>(main.hidden_size) * 2;
  const uint64_t whole =
      weights_bytes(main, ModelShard::whole(main), request.main.formats, DeviceKind::kCpu);
  CHECK(one.main_pass_bytes == whole - table);  // single rows of the embedding are nothing
  const ModelConfig& draft = request.draft->config;
  CHECK(one.draft_pass_bytes ==  // tied: the table is the head, which is read whole
        weights_bytes(draft, ModelShard::whole(draft), request.draft->formats, DeviceKind::kCpu));
  CHECK(one.cost_ratio() == Approx(static_cast<double>(one.draft_pass_bytes) /
                                   static_cast<double>(one.main_pass_bytes)));

  request.choose_devices = false;
  const Plan tensor = make_plan(request, kNothingMeasured);  // four devices at once: a quarter each
  CHECK(tensor.main_pass_bytes < one.main_pass_bytes * 3 / 10);
  request.split = SplitChoice::kLayer;
  const Plan layer = make_plan(request, kNothingMeasured);  // one after the other
  CHECK(layer.main_pass_bytes >= one.main_pass_bytes);
  request.draft.reset();
  CHECK(make_plan(request, kNothingMeasured).cost_ratio() == 0);
}

TEST_CASE("a plan in JSON has exactly the documented keys") {
  PlanRequest request = on_devices({32 * kMiB});
  const std::string text = make_plan(request, kNothingMeasured).memory.to_json();
  for (const char* key :
       {"\"fits\":",
        "\"devices\":[{\"name\":\"cpu:0\",\"capacity_bytes\":33554432,\"reserve_bytes\":",
        "\"free_bytes\":", "\"rows\":[{\"model\":\"draft\",\"purpose\":\"weights\",\"bytes\":",
        "\"max_model_len\":",
        "\"placement\":[{\"model\":\"draft\",\"split\":\"layer\",\"devices\":",
        "\"layers\":[[0,1]]", "\"shortfall\":"}) {
    CAPTURE(text, key);
    CHECK(text.find(key) != std::string::npos);
  }
  CHECK_THROWS_AS(MemoryPlan::from_json("{"), ConfigError);
  CHECK_THROWS_AS(MemoryPlan::from_json("{}"), ConfigError);
  CHECK_THROWS_AS(MemoryPlan::from_json(
                      R"({"fits":true,"devices":[{"name":"a","capacity_bytes":1,"reserve_bytes":0,
      "free_bytes":0,"rows":[{"model":"main","purpose":"fun","bytes":1}]}],"max_model_len":1,"placement":[],
      "shortfall":null})"),
                  ConfigError);
}
