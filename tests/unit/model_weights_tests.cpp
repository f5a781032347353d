#include "model/model_weights.h"

#include <map>

#include "support/catch.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// Headers without data.
class FakeSource final : public WeightSource {
 public:
  std::map<std::string, TensorInfo, std::less<>> tensors;

  std::string name() const override { return "models/x"; }
  bool has(std::string_view tensor) const override { return tensors.find(tensor) != tensors.end(); }
  TensorInfo info(std::string_view tensor) const override {
    const auto found = tensors.find(tensor);
    if (found == tensors.end())
      throw ModelError("models/x: no tensor '" + std::string(tensor) + "'");
    return found->second;
  }
  HostMatrix tensor(std::string_view) override { return {}; }
  void done_with(std::string_view) override {}

  void set(const std::string& tensor, Shape shape) {
    tensors[tensor] = {DType::kBF16, shape, "models/x/model.safetensors"};
  }
};

ModelConfig config_of(const std::string& architecture) {
  return ModelConfig::from_json(
      R"({"architectures":[")" + architecture +
      R"("],"vocab_size":100,"hidden_size":24,"intermediate_size":40,"num_hidden_layers":2,)"
      R"("num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,)"
      R"("max_position_embeddings":64})");
}

/// A checkpoint that fits the config.
FakeSource good(const ModelConfig& config) {
  FakeSource source;
  source.set("model.embed_tokens.weight", {100, 24});
  source.set("lm_head.weight", {100, 24});
  source.set("model.norm.weight", {24});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    source.set(layer + "input_layernorm.weight", {24});
    source.set(layer + "post_attention_layernorm.weight", {24});
    source.set(layer + "self_attn.q_proj.weight", {64, 24});
    source.set(layer + "self_attn.k_proj.weight", {32, 24});
    source.set(layer + "self_attn.v_proj.weight", {32, 24});
    source.set(layer + "self_attn.o_proj.weight", {24, 64});
    source.set(layer + "mlp.gate_proj.weight", {40, 24});
    source.set(layer + "mlp.up_proj.weight", {40, 24});
    source.set(layer + "mlp.down_proj.weight", {24, 40});
    if (config.qkv_bias) {
      source.set(layer + "self_attn.q_proj.bias", {64});
      source.set(layer + "self_attn.k_proj.bias", {32});
      source.set(layer + "self_attn.v_proj.bias", {32});
    }
    if (config.qk_norm) {
      source.set(layer + "self_attn.q_norm.weight", {16});
      source.set(layer + "self_attn.k_norm.weight", {16});
    }
  }
  return source;
}

std::string error_of(const ModelConfig& config, const FakeSource& source) {
  try {
    check_weights(config, ModelShard::whole(config), source);
  } catch (const ModelError& error) {
    const std::string message = error.what();
    CHECK(message.find('\n') == std::string::npos);
    return message;
  }
  FAIL("no ModelError");
  return "";
}

TEST_CASE("A checkpoint that fits its config passes") {
  for (const FamilyFacts& family : families()) {
    const ModelConfig config = config_of(std::string(family.architecture));
    CHECK_NOTHROW(check_weights(config, ModelShard::whole(config), good(config)));
  }
}

TEST_CASE("A shape that contradicts config.json is named with file, tensor, key and value") {
  const ModelConfig config = config_of("LlamaForCausalLM");
  FakeSource source = good(config);
  source.set("lm_head.weight", {99, 24});
  CHECK(error_of(config, source) ==
        "models/x/model.safetensors: tensor 'lm_head.weight' has shape (99, 24), config.json says "
        "vocab_size 100");
}

TEST_CASE("Every tensor's every dimension is checked, and that it is there") {
  for (const FamilyFacts& family : families()) {
    const ModelConfig config = config_of(std::string(family.architecture));
    const FakeSource intact = good(config);
    for (const auto& [name, info] : intact.tensors) {
      CAPTURE(name);
      for (int axis = 0; axis < info.shape.rank(); ++axis) {
        FakeSource source = intact;
        const int64_t rows = info.shape[0] + (axis == 0 ? 1 : 0);
        if (info.shape.rank() == 1) {
          source.set(name, {rows});
        } else {
          source.set(name, {rows, info.shape[1] + (axis == 1 ? 1 : 0)});
        }
        CHECK_THAT(error_of(config, source), ContainsText("tensor '" + name + "' has shape"));
      }
      FakeSource flat = intact;
      flat.set(name, info.shape.rank() == 1 ? Shape{1, info.shape[0]} : Shape{info.shape.count()});
      CHECK_THAT(error_of(config, flat), ContainsText("is expected there"));
      FakeSource missing = intact;
      missing.tensors.erase(name);
      CHECK_THAT(error_of(config, missing), ContainsText("no tensor '" + name + "'"));
    }
  }
}

TEST_CASE("Tensors that the config denies are refused") {
  const ModelConfig config = config_of("LlamaForCausalLM");
  FakeSource source = good(config);
  SECTION("a bias") {
    source.set("model.layers.1.self_attn.k_proj.bias", {32});
    CHECK_THAT(error_of(config, source), ContainsText("no attention_bias"));
  }
  SECTION("one more layer") {
    source.set("model.layers.2.input_layernorm.weight", {24});
    CHECK_THAT(error_of(config, source), ContainsText("num_hidden_layers 2"));
  }
  SECTION("head norms") {
    source.set("model.layers.0.self_attn.q_norm.weight", {16});
    CHECK_THAT(error_of(config, source), ContainsText("without q and k norms"));
  }
}

TEST_CASE("With tied embeddings the head is not looked for") {
  ModelConfig config = config_of("LlamaForCausalLM");
  config.tie_word_embeddings = true;
  FakeSource source = good(config);
  source.tensors.erase("lm_head.weight");
  CHECK_NOTHROW(check_weights(config, ModelShard::whole(config), source));
}

TEST_CASE("The bytes of a shard's weights add up") {
  const ModelConfig config = config_of("Qwen2ForCausalLM");
  const FormatOf formats = formats_all(WeightFormat::kF32);
  const ModelShard whole = ModelShard::whole(config);
  const auto bytes = [&](const ModelShard& shard) {
    return weights_bytes(config, shard, formats, DeviceKind::kCpu);
  };
  ModelShard first = whole, last = whole;
  first.layers = {0, 1};
  first.has_head = false;
  last.layers = {1, 2};
  last.has_embedding = false;
  // Both hold the rotary frequencies: 8 floats, one aligned block.
  CHECK(bytes(first) + bytes(last) == bytes(whole) + kDeviceAlignment);
  // At least every element once, as a float.
  const uint64_t layer = 2 * 24 + (64 + 32 + 32) * 25 + 24 * 64 + 3 * 24 * 40;
  CHECK(bytes(whole) >= 4 * (2 * 100 * 24 + 24 + 2 * layer + 8));
}

}  // namespace
}  // namespace tandem
