#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "core/size.h"
#include "engine/memory_audit.h"
#include "engine/pair_request.h"
#include "plan/plan_table.h"
#include "support/catch.h"
#include "support/temporary_folder.h"
#include "tandem/error.h"

using namespace tandem;

namespace {

const std::filesystem::path kSource = TANDEM_SOURCE_DIR;
const OverheadHistory kNothingMeasured;

Config pair_of(const char* main, const char* draft) {
  Config config;
  config.main.model = kSource / main;
  config.draft.emplace().model = kSource / draft;
  return config;
}

Config demo() { return pair_of("models/demo/main", "models/demo/draft"); }
Config llama_8b() { return pair_of("tests/data/configs/llama-8b", "tests/data/configs/llama-1b"); }
Config llama_70b() {
  return pair_of("tests/data/configs/llama-70b", "tests/data/configs/llama-1b");
}

Plan plan_of(const Config& config, const std::string& devices) {
  return make_plan(pair_request(config, devices).plan, kNothingMeasured);
}

std::string table_of(const Config& config, const std::string& devices) {
  const PairRequest request = pair_request(config, devices);
  return plan_table(request.plan, make_plan(request.plan, kNothingMeasured), request.outlook);
}

std::string refusal(const std::function<void()>& work) {
  try {
    work();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

uint64_t weights_on(const Plan& plan, const std::string& model) {
  uint64_t sum = 0;
  for (const DevicePlan& device : plan.memory.devices) {
    for (const MemoryRow& row : device.rows) {
      if (row.model == model && row.purpose == MemoryPurpose::kWeights) sum += row.bytes;
    }
  }
  return sum;
}

}  // namespace

TEST_CASE("pairs are planned from config.json alone") {
  // Published sizes: 8.03, 1.24 and 70.6 billion parameters of two bytes, norms of four.
  const Plan small = plan_of(llama_8b(), "80GiB");
  CHECK(small.memory.fits);
  CHECK(small.memory.max_model_len == 131072);
  CHECK(static_cast<double>(weights_on(small, "main")) == Approx(2 * 8.03e9).epsilon(0.001));
  CHECK(static_cast<double>(weights_on(small, "draft")) == Approx(2 * 1.236e9).epsilon(0.001));
  CHECK(small.cost_ratio() == Approx(1.236 / (8.03 - 0.525)).epsilon(0.01));

  const Plan large = plan_of(llama_70b(), "141GiB,141GiB,141GiB,141GiB");
  CHECK(large.memory.fits);
  CHECK(large.main.placement.ranks() == 2);  // the fewest that hold the whole context
  CHECK(static_cast<double>(weights_on(large, "main")) == Approx(2 * 70.55e9).epsilon(0.001));

  const Plan misfit = plan_of(llama_70b(), "24GiB,24GiB");
  REQUIRE(misfit.memory.shortfall);
  CHECK(misfit.memory.shortfall->max_model_len == 0);

  const Plan uneven = plan_of(llama_8b(), "24GiB,12GiB");
  CHECK(uneven.memory.fits);
  CHECK(uneven.memory.placement.back().split == "layer");
}

TEST_CASE("an auto draft sits where there is room, whatever the devices' order") {
  for (const char* devices : {"cpu:0=60GiB,cpu:1=2GiB", "cpu:1=2GiB,cpu:0=60GiB"}) {
    CAPTURE(devices);
    Config config = llama_8b();
    config.main.devices = devices;
    const Plan plan = plan_of(config, "");
    REQUIRE(plan.memory.fits);
    CHECK(plan.memory.placement.front().devices == std::vector<std::string>{"cpu:0"});
    CHECK(plan.main.devices == std::vector<size_t>{0, 1});
  }
  // Neither device would hold both: the draft takes the one that a split cannot use.
  Config apart = llama_8b();
  apart.main.split = "tensor";
  const Plan plan = plan_of(apart, "18GiB,5GiB");
  REQUIRE(plan.memory.fits);
  CHECK(plan.main.devices == std::vector<size_t>{0});
  CHECK(plan.draft->devices == std::vector<size_t>{1});
}

TEST_CASE("an auto context leaves the host's memory to others") {
  Config config = llama_8b();
  config.main.devices = "cpu:0";
  PairRequest request = pair_request(config);
  request.plan.devices[0].capacity_bytes = request.plan.devices[0].free_bytes = 500 * kGiB;
  const auto text = [&] {
    return plan_table(request.plan, make_plan(request.plan, kNothingMeasured), request.outlook);
  };
  CHECK(text().find("context 8192 tokens of 131072; set main.max_model_len for more") !=
        std::string::npos);
  request.plan.max_model_len = 20000;
  CHECK(text().find("context 20000 tokens, as configured") != std::string::npos);

  config.main.devices = "cpu:0=500GiB";
  CHECK(plan_of(config, "").memory.max_model_len == 131072);
  Config small = demo();
  small.main.devices = "cpu:0";
  CHECK(pair_request(small).plan.wanted_context() == 2048);
}

TEST_CASE("tensor headers decide over what config.json says") {
  const Plan stored = plan_of(demo(), "cpu:0=1GiB");
  Config wide = demo();
  wide.main.dtype = "float32";
  CHECK(weights_on(plan_of(wide, "cpu:0=1GiB"), "main") > weights_on(stored, "main") * 19 / 10);
  CHECK(weights_on(plan_of(wide, "cpu:0=1GiB"), "draft") == weights_on(stored, "draft"));
  Config quantized = llama_8b();
  quantized.main.quantization = "int4";
  // A quarter of the projections' bytes, and scales; embedding and head as they were.
  const uint64_t whole = weights_on(plan_of(llama_8b(), "80GiB"), "main");
  CHECK(weights_on(plan_of(quantized, "80GiB"), "main") < whole * 2 / 5);
  CHECK(weights_on(plan_of(quantized, "80GiB"), "main") > whole / 4);
}

TEST_CASE("damaged weights are refused before anything is planned") {
  const tandem::testing::TemporaryFolder folder;
  std::filesystem::copy(kSource / "models/demo/main/config.json", folder.path());
  std::ofstream(folder.path() / "model.safetensors") << "no header";
  Config config = demo();
  config.main.model = folder.path();
  CHECK_THROWS_AS(pair_request(config), ModelError);
}

TEST_CASE("devices are those that are named, or all there are") {
  Config config = demo();
  const DeviceChoice automatic = choose_devices(config);
  CHECK(automatic.choose_devices);
  CHECK_FALSE(automatic.draft_device);

  config.main.devices = "cpu:1=64MiB,cpu:0=32MiB";
  config.draft->device = "cpu:0";
  const DeviceChoice named = choose_devices(config);
  CHECK_FALSE(named.choose_devices);
  CHECK(named.specs.size() == 2);
  CHECK(named.draft_device == 1);
  const auto surveyed = survey_devices(named, config.memory);
  CHECK(surveyed[0].capacity_bytes == 64 * kMiB);
  CHECK(surveyed[0].reserve_bytes == 0);  // the default is not for simulated devices

  config.draft->device = "cpu:5=16MiB";
  const DeviceChoice apart = choose_devices(config);
  CHECK(apart.specs.size() == 3);
  CHECK(apart.main_devices.size() == 2);
  CHECK(apart.draft_device == 2);
  const Plan plan = make_plan(pair_request(config).plan, kNothingMeasured);
  CHECK(plan.memory.fits);
  CHECK(plan.memory.devices[2].bytes_of("draft") > 0);
  CHECK(plan.memory.devices[2].bytes_of("main") == 0);
  config.speculation.method = "ngram";
  CHECK(choose_devices(config).specs.size() == 2);

  config.main.devices = "cuda:999";
  CHECK(refusal([&] { choose_devices(config); }).find("no device cuda:999") != std::string::npos);
}

TEST_CASE("devices that share the host share its memory") {
  Config config = demo();
  config.main.devices = "cpu:0,cpu:1,cpu:2=64MiB";
  const auto devices = survey_devices(choose_devices(config), config.memory);
  const auto alone = survey_devices(choose_devices(demo()), config.memory);
  CHECK(devices[0].capacity_bytes == devices[1].capacity_bytes);
  CHECK(devices[0].reserve_bytes == Config::Memory::kDefaultReserveBytes);
  CHECK(devices[2].capacity_bytes == 64 * kMiB);
  CHECK(devices[0].pool == "host");
  CHECK(devices[1].pool == "host");
  CHECK(devices[2].pool.empty());
  if (alone[0].id.kind == DeviceKind::kCpu) {
    CHECK(devices[0].capacity_bytes + devices[1].capacity_bytes <= alone[0].capacity_bytes);
  }
}

TEST_CASE("reserve and limit may differ by device") {
  Config config = demo();
  config.memory.reserve_bytes = 5 * kMiB;
  config.memory.reserve_bytes_by_device = {{"cpu:1", 3 * kMiB}};
  config.memory.limit_bytes_by_device = {{"cpu:0", 9 * kMiB}};
  const auto devices =
      survey_devices(choose_devices(config, "cpu:0=64MiB, cpu:1=64MiB, 8GiB"), config.memory);
  CHECK(devices[0].reserve_bytes == 5 * kMiB);
  CHECK(devices[1].reserve_bytes == 3 * kMiB);
  CHECK(devices[0].limit_bytes == 9 * kMiB);
  CHECK_FALSE(devices[1].limit_bytes);
  CHECK(to_string(devices[2].id) == "cuda:2");

  // The size of the default, written, is a reserve like any other.
  config.memory = {};
  config.memory.reserve_bytes = Config::Memory::kDefaultReserveBytes;
  const auto written = survey_devices(choose_devices(config, "cpu:0=1GiB"), config.memory);
  CHECK(written[0].reserve_bytes == 256 * kMiB);
}

TEST_CASE("settings of devices that contradict the list are refused") {
  Config config = demo();
  config.main.devices = "cpu:0=40GiB";
  config.draft->device = "cpu:0=99GiB";
  CHECK(refusal([&] { choose_devices(config); }).find("give cpu:0 40.00 GiB") != std::string::npos);
  config.main.devices = "cpu:0";
  CHECK(refusal([&] { choose_devices(config); }).find("give cpu:0 no size") != std::string::npos);
  config.main.devices = "cpu:0=99GiB";
  CHECK_NOTHROW(choose_devices(config));

  config.draft->device = "cpu:7=1GiB";
  config.memory.reserve_bytes_by_device = {{"cpu:7", 1}};
  CHECK_NOTHROW(choose_devices(config));
  config.memory.reserve_bytes_by_device = {{"cpu:8", 1}};
  CHECK(refusal([&] { choose_devices(config); }).find("\"memory.reserve.cpu:8\"") !=
        std::string::npos);
  config.memory = {};
  config.memory.limit_bytes_by_device = {{"cuda:3", 1}};
  CHECK(refusal([&] { choose_devices(config); }).find("\"memory.limit.cuda:3\"") !=
        std::string::npos);
  config.draft->device = "auto";
  CHECK_NOTHROW(choose_devices(config, "cpu:0=1GiB"));  // a warning
}

TEST_CASE("planned devices that make no sense are refused") {
  for (const char* text :
       {"24GB", "24GiB,", ",", "cpu", "cuda:0", "24GiB,,24GiB", "cpu:0=1GiB,cpu:0=2GiB", "x"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(choose_devices(demo(), text), ConfigError);
  }
  CHECK_FALSE(plan_of(demo(), "24").memory.fits);
  Config config = demo();
  config.draft->device = "cuda:3";
  CHECK(refusal([&] { choose_devices(config, "8GiB"); }).find("not among the planned devices") !=
        std::string::npos);
}

TEST_CASE("the table says what the plan says") {
  const std::string text = table_of(llama_8b(), "25GiB,25GiB");
  for (const char* part :
       {"cuda:0  25.00 GiB\n", "cuda:1  25.00 GiB\n", "█", "▒", "kv_cache", "reserve", "free",
        "main  tensor split: cuda:0, cuda:1, each a share of all 32 layers\n",
        "context 131072 tokens, the model's own limit\n", "cost ratio b = 0.329",
        "0.9        5       1.77×"}) {
    CAPTURE(text, part);
    CHECK(text.find(part) != std::string::npos);
  }
  const std::string layers = table_of(llama_8b(), "24GiB,12GiB");
  CAPTURE(layers);
  CHECK(layers.find("main  layer split: cuda:1 layers 0–11, cuda:0 layers 12–31\n") !=
        std::string::npos);
  CHECK(layers.find("the largest that fits") != std::string::npos);
  CHECK(table_of(llama_70b(), "24GiB,24GiB").find("MISSING") != std::string::npos);
  CHECK(table_of(llama_8b(), "80GiB,80GiB").find("not used") != std::string::npos);

  // Every bar has the same number of cells.
  size_t begin = 0;
  size_t bars = 0;
  while ((begin = layers.find("GiB\n  ", begin)) != std::string::npos) {
    begin += 6;
    const std::string line = layers.substr(begin, layers.find('\n', begin) - begin);
    size_t cells = 0;
    for (const char c : line) cells += (static_cast<unsigned char>(c) & 0xC0u) != 0x80u ? 1 : 0;
    if (line.find("·") == std::string::npos) continue;
    CHECK(cells == 48);
    ++bars;
  }
  CHECK(bars == 2);
}

TEST_CASE("a pair that cannot gain is warned about") {
  const auto warning = [](const Config& config) {
    const PairRequest request = pair_request(config, "500GiB");
    return no_gain_warning(make_plan(request.plan, kNothingMeasured), request.outlook);
  };
  CHECK(warning(llama_8b()).empty());
  const Config same = pair_of("tests/data/configs/llama-8b", "tests/data/configs/llama-8b");
  CHECK(warning(same).find("no number of drafted tokens is predicted to gain") == 0);
  Config ngram = same;
  ngram.speculation.method = "ngram";
  CHECK(warning(ngram).empty());
  CHECK(table_of(ngram, "500GiB").find("cost ratio b = 0\n") != std::string::npos);
  Config plain = same;
  plain.speculation.method = "none";
  CHECK(warning(plain).empty());
  CHECK(table_of(plain, "500GiB").find("acceptance") == std::string::npos);
}

TEST_CASE("an allocation that differs from the plan is named") {
  const MemoryPlan plan = plan_of(demo(), "cpu:0=64MiB").memory;
  MemoryAudit audit(plan);
  CHECK(audit.difference().find("draft weights was planned with") != std::string::npos);
  for (const MemoryRow& row : plan.devices[0].rows) {
    audit.add("cpu:0", row.model, row.purpose, row.bytes);
  }
  CHECK(audit.difference().empty());
  audit.add("cpu:0", "main", MemoryPurpose::kWorkspaces, 5);  // only measurement gives these
  CHECK(audit.difference().empty());
  audit.add("cpu:1", "main", MemoryPurpose::kLogits, 1);
  CHECK(audit.difference() == "cpu:1: main logits was planned with 0 bytes and took 1");
}
