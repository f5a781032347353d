// Expanded models: a small model's function in a large one's shape.

#include "model/expansion.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "model/checkpoint.h"
#include "model/model_loader.h"
#include "model/token_scores.h"
#include "support/catch.h"
#include "support/model_folder.h"
#include "support/model_runner.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using testing::demo_draft;
using testing::demo_main;

/// Larger than the demonstration models in every size, and in none a power of two times.
constexpr ModelShape kTiny = {.name = "tiny",
                              .num_layers = 8,
                              .hidden_size = 448,
                              .num_heads = 15,
                              .num_kv_heads = 5,
                              .head_dim = 128,
                              .intermediate_size = 1000,
                              .vocab_size = 6200,
                              .tie_word_embeddings = false};
constexpr ModelShape kTiedTiny = {.name = "tied",
                                  .num_layers = 3,
                                  .hidden_size = 200,
                                  .num_heads = 9,
                                  .num_kv_heads = 3,
                                  .head_dim = 64,
                                  .intermediate_size = 400,
                                  .vocab_size = 6144,
                                  .tie_word_embeddings = true};

std::unique_ptr<WeightSource> expanded(const std::filesystem::path& folder,
                                       const ModelShape& shape) {
  const ModelConfig small = ModelConfig::from_folder(folder);
  return expand_weights(open_weights(folder), small, expanded_config(small, shape),
                        never_used_token(folder));
}

std::unique_ptr<Transformer> load_expanded(const std::filesystem::path& folder,
                                           const ModelShape& shape, Backend& backend,
                                           Quantization quantization = Quantization::kNone) {
  const ModelConfig config = expanded_config(ModelConfig::from_folder(folder), shape);
  const std::unique_ptr<WeightSource> source = expanded(folder, shape);
  Transformer::Options options;
  options.limits = {.max_positions = 256, .max_rows = 64};
  options.formats = quantized_formats(quantization, config, formats_as_stored(*source));
  return std::make_unique<Transformer>(config, ModelShard::whole(config), *source, backend,
                                       options);
}

std::unique_ptr<Transformer> load_small(const std::filesystem::path& folder, Backend& backend,
                                        Quantization quantization = Quantization::kNone) {
  LoadOptions options;
  options.max_positions = 256;
  options.max_rows = 64;
  options.quantization = quantization;
  return load_model(folder, backend, options);
}

/// Token ids of the prompts that tests/data/demo_reference.json holds.
std::vector<std::vector<int32_t>> prompts(const char* model) {
  std::ifstream file(std::string(TANDEM_SOURCE_DIR) + "/tests/data/demo_reference.json");
  const nlohmann::json reference = nlohmann::json::parse(file);
  std::vector<std::vector<int32_t>> all;
  for (const nlohmann::json& prompt : reference[model]) {
    all.push_back(prompt["ids"].get<std::vector<int32_t>>());
    if (all.back().size() > 32) all.back().resize(32);
  }
  REQUIRE(all.size() >= 6);
  return all;
}

/// Largest difference of the small vocabulary's logits after every token.
double largest_difference(LanguageModel& small, LanguageModel& large,
                          std::span<const int32_t> ids) {
  test::ModelRunner a(small), b(large);
  const std::vector<float> x = a.run(ids, 0), y = b.run(ids, 0);
  const auto rows = ids.size();
  const auto narrow = static_cast<size_t>(small.vocab_size());
  const auto wide = static_cast<size_t>(large.vocab_size());
  double largest = 0;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t id = 0; id < narrow; ++id) {
      const double difference =
          std::abs(static_cast<double>(x[r * narrow + id]) - static_cast<double>(y[r * wide + id]));
      if (!(difference <= largest)) largest = difference;
    }
  }
  return largest;
}

TEST_CASE("An expanded model gives the small one's logits and greedy text") {
  const bool is_main = GENERATE(true, false);
  const ModelShape& shape = is_main || GENERATE(true, false) ? kTiny : kTiedTiny;
  CAPTURE(is_main, shape.name);
  const auto folder = is_main ? demo_main() : demo_draft();
  const std::unique_ptr<Backend> backend = make_backend(parse_device("cpu"), 1);
  const auto small = load_small(folder, *backend);
  const auto large = load_expanded(folder, shape, *backend);
  test::ModelRunner small_runner(*small), large_runner(*large);
  for (const std::vector<int32_t>& ids : prompts(is_main ? "main" : "draft")) {
    CHECK(largest_difference(*small, *large, ids) < 1e-3);
    constexpr int kTokens = 48;
    CHECK(small_runner.greedy(ids, kTokens) == large_runner.greedy(ids, kTokens));
  }
}

TEST_CASE("What is random does not coarsen the scales of fp8") {
  const std::unique_ptr<Backend> backend = make_backend(parse_device("cpu"), 1);
  const auto small = load_small(demo_main(), *backend, Quantization::kFp8);
  ModelShape shape = kTiny;
  shape.tie_word_embeddings = true;  // as the small one's: a table of its own is not quantised
  const auto large = load_expanded(demo_main(), shape, *backend, Quantization::kFp8);
  const auto plain = load_small(demo_main(), *backend);
  const std::vector<int32_t> ids = prompts("main").front();
  CHECK(largest_difference(*small, *large, ids) < 1e-3);
  CHECK(largest_difference(*small, *plain, ids) > 1e-2);  // quantisation is to be seen
}

std::vector<float> values(const HostMatrix& matrix) {
  std::vector<float> out;
  for (int64_t row = 0; row < matrix.rows; ++row) {
    for (int64_t col = 0; col < matrix.cols; ++col) {
      const int64_t index = row * matrix.row_stride + col;
      out.push_back(matrix.dtype == DType::kF32
                        ? static_cast<const float*>(matrix.data)[index]
                        : bf16_to_float(static_cast<const uint16_t*>(matrix.data)[index]));
    }
  }
  return out;
}

TEST_CASE("Windows of an expanded tensor hold the elements of the whole") {
  const auto source = expanded(demo_main(), kTiny);
  for (const char* name : {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
                           "model.layers.6.self_attn.o_proj.weight", "lm_head.weight",
                           "model.layers.7.mlp.up_proj.weight"}) {
    CAPTURE(name);
    const Shape shape = source->info(name).shape;
    const std::vector<float> whole = values(source->tensor(name));
    source->done_with(name);
    const Range rows{shape[0] / 3, shape[0] - 1};
    for (const Range cols : {Range{0, shape[1]}, Range{5, 18}, Range{shape[1] - 131, shape[1]}}) {
      const std::vector<float> part = values(source->window(name, rows, cols));
      source->done_with(name);
      REQUIRE(part.size() == static_cast<size_t>(rows.size() * cols.size()));
      for (size_t i = 0; i < part.size(); ++i) {
        const int64_t row = rows.begin + static_cast<int64_t>(i) / cols.size();
        const int64_t col = cols.begin + static_cast<int64_t>(i) % cols.size();
        REQUIRE(part[i] == whole[static_cast<size_t>(row * shape[1] + col)]);
      }
    }
  }
}

TEST_CASE("Two sources of one expanded model hold the same weights") {
  const auto a = expanded(demo_draft(), kTiny), b = expanded(demo_draft(), kTiny);
  const char* const name = "model.layers.5.mlp.gate_proj.weight";
  CHECK(values(a->tensor(name)) == values(b->tensor(name)));
}

TEST_CASE("Only what must be zero is zero") {
  const auto source = expanded(demo_main(), kTiny);
  const auto zeros = [&](const std::string& name) {
    const std::vector<float> all = values(source->tensor(name));
    source->done_with(name);
    return static_cast<double>(std::count(all.begin(), all.end(), 0.0f)) /
           static_cast<double>(all.size());
  };
  CHECK(zeros("model.layers.0.self_attn.o_proj.weight") > 0.5);
  CHECK(zeros("model.layers.7.self_attn.o_proj.weight") == 1.0);
  CHECK(zeros("model.layers.7.mlp.down_proj.weight") == 1.0);
  // Own weights of the checkpoint may be zero.
  for (const char* name :
       {"self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"}) {
    for (const char* layer : {"model.layers.0.", "model.layers.7."}) {
      CHECK(zeros(std::string(layer) + name + ".weight") < 0.01);
    }
  }
  CHECK(zeros("model.layers.7.self_attn.q_proj.weight") == 0.0);
  CHECK(zeros("lm_head.weight") < 0.01);
}

TEST_CASE("Norm weights are scaled in float32, and extra vocabulary repeats an unused row") {
  const auto source = expanded(demo_main(), kTiny);
  const auto small = open_weights(demo_main());
  const char* const norm = "model.layers.3.input_layernorm.weight";
  CHECK(source->info(norm).dtype == DType::kF32);
  const std::vector<float> own = values(small->tensor(norm));
  const std::vector<float> scaled = values(source->tensor(norm));
  const float factor = std::sqrt(320.0f / 448.0f);
  for (size_t i = 0; i < own.size(); ++i) REQUIRE(scaled[i] == own[i] * factor);
  const ModelConfig config = expanded_config(ModelConfig::from_folder(demo_main()), kTiny);
  CHECK(config.rms_norm_eps == 1e-5f * 320.0f / 448.0f);
  CHECK(config.attention_scale == 0.125f);

  const int32_t unused = never_used_token(demo_main());
  const char* const table = "model.embed_tokens.weight";
  const std::vector<float> row =
      values(source->window(table, {unused, unused + 1}, {0, kTiny.hidden_size}));
  source->done_with(table);
  CHECK(row == values(source->window(table, {6144, 6145}, {0, kTiny.hidden_size})));
}

TEST_CASE("A model that a shape cannot hold is refused") {
  const ModelConfig main = ModelConfig::from_folder(demo_main());
  const auto refusal = [&](const ModelShape& shape) {
    try {
      expanded_config(main, shape);
    } catch (const ModelError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(refusal(kTiny).empty());
  ModelShape shape = kTiny;
  shape.hidden_size = 319;
  CHECK_THAT(refusal(shape), ContainsText("hidden_size 320 exceeds 319"));
  shape = kTiny;
  shape.head_dim = 96;
  CHECK_THAT(refusal(shape), ContainsText("head_dim 64 does not divide 96"));
  shape = kTiny;
  shape.num_heads = 5;
  CHECK_THAT(refusal(shape), ContainsText("query heads"));
  shape = kTiny;
  shape.num_layers = 6;
  CHECK_THAT(refusal(shape), ContainsText("num_hidden_layers 7 exceeds 6"));
  ModelConfig normed = main;
  normed.qk_norm = true;
  CHECK_THROWS_AS(expanded_config(normed, kTiny), ModelError);
}

TEST_CASE("The shapes of large models are planned and found by name") {
  const ModelConfig config = Checkpoint(demo_main(), "8B").config();
  CHECK(config.hidden_size == 4096);
  CHECK(config.num_layers == 32);
  CHECK_FALSE(config.tie_word_embeddings);
  CHECK(Checkpoint(demo_draft(), "1B").config().tie_word_embeddings);
  const uint64_t bytes = weights_bytes(config, ModelShard::whole(config),
                                       formats_all(WeightFormat::kBF16), DeviceKind::kCuda);
  CHECK(bytes > 16'000'000'000u);
  CHECK(bytes < 16'100'000'000u);
  CHECK_THROWS_WITH(Checkpoint(demo_main(), "9B").config(),
                    ContainsText("9B") && ContainsText("none, 1B, 8B, 70B"));
  CHECK_NOTHROW(
      check_weights(config, ModelShard::whole(config), *Checkpoint(demo_main(), "8B").open()));
}

}  // namespace
}  // namespace tandem
