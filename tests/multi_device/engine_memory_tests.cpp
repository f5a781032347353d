#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/size.h"
#include "support/catch.h"
#include "support/sanitized.h"
#include "tandem/engine.h"

using namespace tandem;

namespace {

constexpr int kTokens = 48;
constexpr const char* kPrompt = "def fibonacci(n):\n";

Config demo_on(const std::string& devices, const std::string& split = "auto") {
  const std::filesystem::path source = TANDEM_SOURCE_DIR;
  Config config;
  config.main.model = source / "models/demo/main";
  config.draft.emplace().model = source / "models/demo/draft";
  config.main.devices = devices;
  config.main.split = split;
  config.cpu_threads = 2;
  return config;
}

std::string simulated(int count) {
  std::string devices;
  for (int i = 0; i < count; ++i) {
    devices += (i > 0 ? ",cpu:" : "cpu:") + std::to_string(i) + "=96MiB";
  }
  return devices;
}

std::vector<int32_t> greedy(Engine& engine, std::optional<int> num_drafts = {}) {
  Request request;
  request.prompt = std::string(kPrompt);
  request.params.max_tokens = kTokens;
  request.params.ignore_eos = true;
  request.num_speculative_tokens = num_drafts;
  return engine.submit(std::move(request)).wait().front().token_ids;
}

}  // namespace

TEST_CASE("an engine takes what it planned, and says so") {
  const std::vector<int32_t> expected = greedy(*Engine::from_config(demo_on(simulated(1))));
  REQUIRE(expected.size() == kTokens);
  for (int devices = 1; devices <= 4; ++devices) {
    for (const char* split : {"layer", "tensor"}) {
      CAPTURE(devices, split);
      const auto engine = Engine::from_config(demo_on(simulated(devices), split));
      const MemoryPlan& plan = engine->memory_plan();
      CHECK(plan.fits);
      CHECK(plan.placement.back().devices.size() == static_cast<size_t>(devices));
      uint64_t planned = 0;
      for (const DevicePlan& device : plan.devices) planned += device.bytes_of("");
      uint64_t actual = 0;
      const std::vector<MemoryUse> memory = engine->stats().memory;
      REQUIRE_FALSE(memory.empty());
      for (const MemoryUse& use : memory) {
        CAPTURE(use.device, use.model, name_of(use.purpose));
        CHECK(use.planned_bytes == use.actual_bytes);
        actual += use.actual_bytes;
      }
      CHECK(actual == planned);
      CHECK(engine->stats().num_completions == 0);
      CHECK(greedy(*engine) == expected);
      CHECK(greedy(*engine, 0) == expected);
      const EngineStats stats = engine->stats();
      CHECK(stats.num_completions == 2);
      CHECK(stats.total.num_tokens == 2 * kTokens);
    }
  }
}

TEST_CASE("the draft may be on any device, and changes no text") {
  const auto sampled = [](Engine& engine, const char* method) {
    Request request;
    request.prompt = std::string(kPrompt);
    request.rejection_sample_method = method;
    request.num_speculative_tokens = 3;
    request.params.max_tokens = kTokens;
    request.params.ignore_eos = true;
    request.params.temperature = 0.8f;
    request.params.repetition_penalty = 1.1f;
    request.params.seed = 11;
    return engine.submit(std::move(request)).wait().front().token_ids;
  };
  struct Place {
    int devices;
    const char* split;
    const char* draft;
  };
  const std::vector<int32_t> expected = greedy(*Engine::from_config(demo_on(simulated(1))), 0);
  std::vector<Place> places = {
      {1, "auto", "cpu:1=32MiB"}, {2, "tensor", "cpu:1"}, {2, "layer", "cpu:2=32MiB"}};
  if (!test::kSanitized) {
    for (const Place& place : {Place{2, "tensor", "cpu:0"}, Place{2, "tensor", "cpu:2=32MiB"},
                               Place{2, "layer", "cpu:0"}, Place{2, "layer", "cpu:1"}}) {
      places.push_back(place);
    }
  }
  for (const Place& place : places) {
    CAPTURE(place.devices, place.split, place.draft);
    const std::string device = std::string(place.draft).substr(0, 5);
    Config config = demo_on(simulated(place.devices), place.split);
    const auto shared = Engine::from_config(config);
    config.draft->device = place.draft;
    const auto engine = Engine::from_config(config);
    for (const DevicePlan& planned : engine->memory_plan().devices) {
      CHECK((planned.bytes_of("draft") > 0) == (planned.name == device));
    }
    CHECK(engine->info().draft_place.find(device + ", as configured") == 0);
    for (const MemoryUse& use : engine->stats().memory) {
      CAPTURE(use.device, use.model, name_of(use.purpose));
      CHECK(use.planned_bytes == use.actual_bytes);
    }
    CHECK(greedy(*engine) == expected);
    CHECK(greedy(*engine, 0) == expected);
    CHECK(greedy(*engine, 3) == expected);  // "auto" may not draft on a busy machine
    CHECK(engine->stats().total.num_accepted_tokens > 0);
    for (const char* method : {"rejection", "block", "coupled"}) {
      CAPTURE(method);
      CHECK(sampled(*engine, method) == sampled(*shared, method));
    }
  }
}

TEST_CASE("what does not fit is refused before anything is loaded") {
  EngineOptions options;
  bool loaded = false;
  options.on_load = [&](std::string_view, uint64_t, uint64_t) { loaded = true; };
  options.ledger = MemoryLedger::create();
  try {
    Engine::from_config(demo_on("cpu:0=20MiB"), options);
    FAIL("nothing was thrown");
  } catch (const MemoryError& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(message.find("cpu:0 is ") != std::string::npos);
    CHECK(message.find(" short") != std::string::npos);
    CHECK(error.exit_code() == ExitCode::kMemory);
  }
  CHECK_FALSE(loaded);
  CHECK(options.ledger->reserved_bytes("cpu:0") == 0);
}

TEST_CASE("of two engines loaded at once into memory for one, exactly one succeeds") {
  EngineOptions options;
  options.ledger = MemoryLedger::create();
  Config config = demo_on("cpu:0=80MiB");  // 61 MiB for one with the whole context
  config.main.max_model_len = 2048;
  std::unique_ptr<Engine> engines[2];
  std::string refusals[2];
  std::atomic<int> waiting{2};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      --waiting;
      while (waiting.load() > 0) std::this_thread::yield();
      try {
        engines[i] = Engine::from_config(config, options);
      } catch (const MemoryError& error) {
        refusals[i] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE((engines[0] == nullptr) != (engines[1] == nullptr));
  const int winner = engines[0] == nullptr ? 1 : 0;
  CAPTURE(refusals[1 - winner]);
  CHECK(refusals[1 - winner].find("cpu:0 is ") != std::string::npos);
  CHECK(greedy(*engines[winner]).size() == kTokens);

  engines[winner].reset();
  CHECK(options.ledger->reserved_bytes("cpu:0") == 0);
  CHECK_NOTHROW(Engine::from_config(config, options));
}

TEST_CASE("a load that is cancelled half-way returns every byte") {
  for (const char* devices : {"cpu:0=96MiB", "cpu:0=96MiB,cpu:1=96MiB"}) {
    for (const std::string model : {"draft", "main"}) {
      CAPTURE(devices, model);
      EngineOptions options;
      options.ledger = MemoryLedger::create();
      bool half_way = false;
      uint64_t reserved = 0;
      options.on_load = [&](std::string_view role, uint64_t done, uint64_t total) {
        half_way = half_way || (role == model && done >= total / 2);
        reserved = options.ledger->reserved_bytes("cpu:0");
      };
      options.cancelled = [&] { return half_way; };
      CHECK_THROWS_AS(Engine::from_config(demo_on(devices), options), CancelledError);
      CHECK(reserved > 0);
      CHECK(options.ledger->reserved_bytes("cpu:0") == 0);
      CHECK(options.ledger->reserved_bytes("cpu:1") == 0);
      options.cancelled = {};
      CHECK_NOTHROW(Engine::from_config(demo_on(devices), options));
    }
  }
}
