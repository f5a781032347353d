// Pairs whose weights are quantised while they load.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "support/catch.h"
#include "tandem/engine.h"

using namespace tandem;

namespace {

constexpr const char* kPrompt = "def fibonacci(n):\n";

Config demo(const std::string& main_quantization, const std::string& draft_quantization,
            const std::string& devices = "cpu:0=96MiB") {
  const std::filesystem::path source = TANDEM_SOURCE_DIR;
  Config config;
  config.main.model = source / "models/demo/main";
  config.main.quantization = main_quantization;
  config.main.devices = devices;
  config.draft.emplace().model = source / "models/demo/draft";
  config.draft->quantization = draft_quantization;
  config.cpu_threads = 1;
  return config;
}

Completion greedy(Engine& engine, int num_drafts) {
  Request request;
  request.prompt = std::string(kPrompt);
  request.params.max_tokens = 96;
  request.params.ignore_eos = true;
  request.num_speculative_tokens = num_drafts;
  return engine.submit(std::move(request)).wait().front();
}

uint64_t weights_of(const Engine& engine, const std::string& model) {
  uint64_t bytes = 0;
  const std::vector<MemoryUse> memory = engine.stats().memory;
  for (const MemoryUse& use : memory) {
    CHECK(use.planned_bytes == use.actual_bytes);
    if (use.model == model && use.purpose == MemoryPurpose::kWeights) bytes += use.actual_bytes;
  }
  return bytes;
}

}  // namespace

TEST_CASE("A quantised draft changes no token of the text, and few of what it proposes") {
  const auto plain = Engine::from_config(demo("none", "none"));
  const Completion expected = greedy(*plain, 4);
  REQUIRE(expected.stats.acceptance_rate() > 0.3);
  for (const char* quantization : {"fp8", "int4"}) {
    CAPTURE(quantization);
    const auto engine = Engine::from_config(demo("none", quantization));
    CHECK(weights_of(*engine, "draft") < weights_of(*plain, "draft") * 3 / 5);
    CHECK(weights_of(*engine, "main") == weights_of(*plain, "main"));
    const Completion completion = greedy(*engine, 4);
    CHECK(completion.token_ids == expected.token_ids);
    CHECK(completion.stats.acceptance_rate() > 0.8 * expected.stats.acceptance_rate());
  }
}

TEST_CASE("A quantised main model gives one text with a draft and without, split or not") {
  const std::string quantization = GENERATE("fp8", "int4");
  CAPTURE(quantization);
  const auto engine = Engine::from_config(demo(quantization, quantization));
  const std::vector<int32_t> expected = greedy(*engine, 0).token_ids;
  CHECK(greedy(*engine, 4).token_ids == expected);
  CHECK(weights_of(*engine, "main") < (quantization == "fp8" ? 12'500'000u : 8'500'000u));
  const std::string two = "cpu:0=96MiB,cpu:1=96MiB";
  Config layers = demo(quantization, "none", two);
  layers.main.split = "layer";
  CHECK(greedy(*Engine::from_config(layers), 4).token_ids == expected);
  Config tensors = demo(quantization, "none", two);
  tensors.main.split = "tensor";
  const auto split = Engine::from_config(tensors);
  weights_of(*split, "main");
  CHECK(greedy(*split, 4).token_ids == greedy(*split, 0).token_ids);
}
