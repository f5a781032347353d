#include "model/model_config.h"

#include <nlohmann/json.hpp>

#include "model/rope.h"
#include "support/catch.h"
#include "support/safetensors_builder.h"
#include "support/temporary_folder.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

const std::filesystem::path kSource = TANDEM_SOURCE_DIR;

/// A config that is in order; tests change one thing in it.
Json good() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"vocab_size", 32000},
          {"hidden_size", 256},
          {"intermediate_size", 512},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 2},
          {"rms_norm_eps", 1e-5},
          {"max_position_embeddings", 4096},
          {"bos_token_id", 1},
          {"eos_token_id", {7, 2, 7}}};
}

Json with(const std::string& key, const Json& value) {
  Json json = good();
  json[key] = value;
  return json;
}

ModelConfig parse(const Json& json) { return ModelConfig::from_json(json.dump(), "x/config.json"); }

std::string text_error(const std::string& text) {
  try {
    ModelConfig::from_json(text, "x/config.json");
  } catch (const ModelError& error) {
    const std::string message = error.what();
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.rfind("x/config.json: ", 0) == 0);
    return message;
  }
  FAIL("no ModelError for " + text);
  return "";
}

std::string error_of(const Json& json) { return text_error(json.dump()); }

TEST_CASE("A config is read and normalised") {
  const ModelConfig config = parse(good());
  CHECK(config.family->architecture == "LlamaForCausalLM");
  CHECK(config.vocab_size == 32000);
  CHECK(config.hidden_size == 256);
  CHECK(config.intermediate_size == 512);
  CHECK(config.num_layers == 3);
  CHECK(config.num_heads == 8);
  CHECK(config.num_kv_heads == 2);
  CHECK(config.head_dim == 32);
  CHECK(config.query_width() == 256);
  CHECK(config.kv_width() == 64);
  CHECK(config.rms_norm_eps == 1e-5f);
  CHECK(config.attention_scale == Approx(1.0 / std::sqrt(32.0)));
  CHECK(config.max_position_embeddings == 4096);
  CHECK_FALSE(config.tie_word_embeddings);
  CHECK(config.rope == RopeConfig{});
  CHECK(config.bos_token_id == 1);
  CHECK(config.eos_token_ids == std::vector<int>{2, 7});
  CHECK(config.warnings.empty());
}

TEST_CASE("The demonstration models' configs are read, in the older and the newer form") {
  const ModelConfig main = ModelConfig::from_folder(kSource / "models/demo/main");
  CHECK(main.rope.theta == 500000.0);
  CHECK(main.dtype == DType::kBF16);
  CHECK((main.num_layers == 7 && main.num_kv_heads == 4 && main.tie_word_embeddings));
  const ModelConfig draft = ModelConfig::from_folder(kSource / "models/demo/draft");
  CHECK(draft.rope.theta == 10000.0);
  CHECK(draft.dtype == DType::kBF16);
  CHECK(draft.eos_token_ids == std::vector<int>{1});
}

TEST_CASE("Absent and null values get the family's defaults") {
  Json json = good();
  for (const char* key : {"num_key_value_heads", "rms_norm_eps", "bos_token_id", "eos_token_id"})
    json.erase(key);
  json["head_dim"] = nullptr;
  const ModelConfig config = parse(json);
  CHECK(config.num_kv_heads == 8);
  CHECK(config.head_dim == 32);
  CHECK(config.rms_norm_eps == 1e-6f);
  CHECK_FALSE(config.bos_token_id.has_value());
  CHECK(config.eos_token_ids.empty());
}

TEST_CASE("Families differ in biases, norms and head size") {
  SECTION("llama says so itself") {
    Json json = with("attention_bias", true);
    json["mlp_bias"] = true;
    const ModelConfig config = parse(json);
    CHECK((config.qkv_bias && config.output_bias && config.mlp_bias && !config.qk_norm));
    CHECK_FALSE(parse(good()).qkv_bias);
  }
  SECTION("mistral has none") {
    Json json = with("architectures", {"MistralForCausalLM"});
    json["attention_bias"] = true;
    const ModelConfig config = parse(json);
    CHECK_FALSE((config.qkv_bias || config.output_bias || config.mlp_bias || config.qk_norm));
  }
  SECTION("qwen2 always has q, k, v biases") {
    const ModelConfig config = parse(with("architectures", {"Qwen2ForCausalLM"}));
    CHECK((config.qkv_bias && !config.output_bias && !config.mlp_bias && !config.qk_norm));
  }
  SECTION("qwen3 has q and k norms and a head size of its own") {
    const ModelConfig config = parse(with("architectures", {"Qwen3ForCausalLM"}));
    CHECK((config.qk_norm && !config.qkv_bias && config.head_dim == 128));
    Json json = with("architectures", {"Qwen3ForCausalLM"});
    json["head_dim"] = 64;
    CHECK(parse(json).query_width() == 512);
  }
  SECTION("without architectures the model type decides") {
    Json json = with("model_type", "qwen2");
    json.erase("architectures");
    CHECK(parse(json).family->architecture == "Qwen2ForCausalLM");
  }
}

TEST_CASE("Rope settings are read from every generation of config") {
  const Json llama3 = {{"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192}};
  const RopeConfig expected{RopeConfig::Kind::kLlama3, 500000.0, 8.0, 1.0, 4.0, 8192};
  SECTION("older") {
    Json json = with("rope_theta", 500000.0);
    json["rope_scaling"] = llama3;
    json["rope_scaling"]["rope_type"] = "llama3";
    CHECK(parse(json).rope == expected);
  }
  SECTION("transformers 5") {
    Json json = good();
    json["rope_parameters"] = llama3;
    json["rope_parameters"].update({{"rope_type", "llama3"}, {"rope_theta", 500000}});
    CHECK(parse(json).rope == expected);
  }
  SECTION("the oldest name of the type") {
    const RopeConfig rope = parse(with("rope_scaling", {{"type", "linear"}, {"factor", 2}})).rope;
    CHECK(rope.kind == RopeConfig::Kind::kLinear);
    CHECK(rope.factor == 2.0);
  }
  SECTION("null and default") {
    CHECK(parse(with("rope_scaling", nullptr)).rope == RopeConfig{});
    CHECK(parse(with("rope_scaling", {{"rope_type", "default"}})).rope == RopeConfig{});
  }
  SECTION("both, contradicting each other") {
    Json json = with("rope_parameters", {{"rope_type", "default"}, {"rope_theta", 10000.0}});
    json["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
    CHECK_THAT(error_of(json), ContainsText("contradict"));
  }
  SECTION("unknown types are refused by name") {
    for (const char* type : {"yarn", "dynamic", "longrope", "mrope"}) {
      const std::string message =
          error_of(with("rope_scaling", {{"rope_type", type}, {"factor", 4.0}}));
      CHECK_THAT(message, ContainsText("rope_scaling.rope_type"));
      CHECK_THAT(message, ContainsText(std::string("\"") + type + "\""));
      CHECK_THAT(message, ContainsText("default, linear and llama3"));
    }
    CHECK_THAT(error_of(with("rope_scaling", {{"rope_type", "longrope"}})),
               ContainsText("\"longrope\""));
  }
  SECTION("incomplete and impossible settings") {
    CHECK_THAT(error_of(with("rope_scaling", {{"type", "linear"}})),
               ContainsText("\"rope_scaling.factor\" is missing"));
    CHECK_THAT(error_of(with("rope_scaling", {{"type", "linear"}, {"factor", 0}})),
               ContainsText("above 0"));
    CHECK_THAT(error_of(with("rope_scaling", 3)), ContainsText("an object or null"));
    CHECK_THAT(error_of(with("rope_theta", -1)), ContainsText("above 0"));
    CHECK_THAT(error_of(with("rope_theta", "10000")), ContainsText("a number above 0"));
    Json reversed = llama3;
    reversed.update({{"rope_type", "llama3"}, {"high_freq_factor", 1.0}});
    CHECK_THAT(error_of(with("rope_scaling", reversed)), ContainsText("must be above"));
  }
}

TEST_CASE("Rotary frequencies follow the rope kind") {
  RopeConfig rope;
  rope.theta = 10000.0;
  const std::vector<float> plain = rope_frequencies(rope, 8);
  REQUIRE(plain.size() == 4);
  CHECK(plain[0] == 1.0f);
  CHECK(plain[2] == Approx(0.01));
  SECTION("linear divides all") {
    rope.kind = RopeConfig::Kind::kLinear;
    rope.factor = 4.0;
    for (size_t i = 0; i < plain.size(); ++i)
      CHECK(rope_frequencies(rope, 8)[i] == plain[i] / 4.0f);
  }
  SECTION("llama3 keeps the fast ones, divides the slow ones and blends between") {
    rope = {RopeConfig::Kind::kLlama3, 10000.0, 8.0, 1.0, 4.0, 128};
    const std::vector<float> scaled = rope_frequencies(rope, 8);
    CHECK(scaled[0] == plain[0]);  // wavelength 6.3 < 128 / 4
    // wavelength 62.8 lies between 32 and 128: smooth = (128 / 62.83 - 1) / 3
    const double smooth = (128.0 / (2 * 3.14159265358979 / 0.1) - 1.0) / 3.0;
    CHECK(scaled[1] == Approx((1 - smooth) * 0.1 / 8 + smooth * 0.1));
    CHECK(scaled[2] == plain[2] / 8.0f);  // 628 > 128
    CHECK(scaled[3] == plain[3] / 8.0f);
  }
}

TEST_CASE("Sliding windows limit the context, where they are in force") {
  SECTION("mistral") {
    const ModelConfig config = parse([] {
      Json json = with("architectures", {"MistralForCausalLM"});
      json["sliding_window"] = 1024;
      return json;
    }());
    CHECK(config.max_position_embeddings == 1024);
    REQUIRE(config.warnings.size() == 1);
    CHECK_THAT(config.warnings[0], ContainsText("sliding window of 1024"));
  }
  SECTION("mistral without, or with a window as long as the context") {
    for (const Json& window : {Json(nullptr), Json(4096), Json(100000)}) {
      Json json = with("architectures", {"MistralForCausalLM"});
      json["sliding_window"] = window;
      CHECK(parse(json).max_position_embeddings == 4096);
      CHECK(parse(json).warnings.empty());
    }
  }
  SECTION("qwen2 says whether it uses its window") {
    Json json = with("architectures", {"Qwen2ForCausalLM"});
    json["sliding_window"] = 1024;
    CHECK(parse(json).max_position_embeddings == 4096);
    json["use_sliding_window"] = false;
    CHECK(parse(json).max_position_embeddings == 4096);
    json["use_sliding_window"] = true;
    CHECK(parse(json).max_position_embeddings == 1024);
  }
}

TEST_CASE("End-of-sequence ids of both files are united") {
  ModelConfig config = parse(good());
  config.merge_generation_config(R"({"eos_token_id": [9, 2], "bos_token_id": 5})");
  CHECK(config.eos_token_ids == std::vector<int>{2, 7, 9});
  CHECK(config.bos_token_id == 1);
  config.merge_generation_config(R"({"eos_token_id": 11})");
  CHECK(config.eos_token_ids == std::vector<int>{2, 7, 9, 11});
  CHECK_THROWS_AS(config.merge_generation_config(R"({"eos_token_id": 32000})"), ModelError);
  CHECK_THROWS_AS(config.merge_generation_config("[]"), ModelError);
}

TEST_CASE("What cannot be run is refused by name") {
  const std::string message = error_of(with("architectures", {"GPT2LMHeadModel"}));
  CHECK_THAT(message, ContainsText("GPT2LMHeadModel"));
  for (const FamilyFacts& family : families())
    CHECK_THAT(message, ContainsText(std::string(family.architecture)));
  Json nameless = good();
  nameless.erase("architectures");
  CHECK_THAT(error_of(nameless), ContainsText("known are: LlamaForCausalLM"));
  CHECK_THAT(error_of(with("architectures", "LlamaForCausalLM")), ContainsText("a list of names"));
  CHECK_THAT(error_of(with("architectures", {1, nullptr})), ContainsText("not known"));
  CHECK_THAT(error_of(with("quantization_config", {{"quant_method", "gptq"}})),
             ContainsText("\"gptq\""));
  CHECK_THAT(error_of(with("hidden_act", "gelu")), ContainsText("only silu"));
  CHECK_THAT(error_of(with("partial_rotary_factor", 0.5)), ContainsText("partial_rotary_factor"));
}

TEST_CASE("Contradictory, missing and hostile values are refused") {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "max_position_embeddings"}) {
    CAPTURE(key);
    Json json = good();
    json.erase(key);
    CHECK_THAT(error_of(json), ContainsText(std::string("\"") + key + "\" is missing"));
    for (const Json& value :
         {Json(0), Json(-1), Json(1.5), Json("8"), Json(true), Json(Json::array()), Json(INT64_MAX),
          Json(INT64_MIN), Json(UINT64_MAX), Json(1e300)}) {
      CHECK_THAT(error_of(with(key, value)), ContainsText(std::string("\"") + key + "\" is "));
    }
  }
  CHECK_THAT(error_of(with("num_attention_heads", 7)),
             ContainsText("no multiple of \"num_key_value_heads\" 2"));
  CHECK_THAT(error_of(with("hidden_size", 255)),
             ContainsText("no multiple of \"num_attention_heads\" 8"));
  CHECK_THAT(error_of(with("head_dim", 33)), ContainsText("even"));
  CHECK_THAT(error_of(with("hidden_size", 8)), ContainsText("even"));
  CHECK_THAT(error_of(with("hidden_size", 1 << 20)), ContainsText("\"head_dim\""));
  CHECK_THAT(error_of(with("eos_token_id", 32000)), ContainsText("0 to 31999"));
  CHECK_THAT(error_of(with("eos_token_id", {1, "x"})), ContainsText("eos_token_id"));
  CHECK_THAT(error_of(with("rms_norm_eps", 0)), ContainsText("above 0"));
  CHECK_THAT(error_of(with("rms_norm_eps", 1e-300)), ContainsText("between 0 and 1"));
  CHECK_THAT(error_of(with("tie_word_embeddings", 1)), ContainsText("true or false"));
  CHECK_THAT(error_of(with("dtype", 16)), ContainsText("a string"));
  CHECK_THAT(text_error("{"), ContainsText("not valid JSON"));
  CHECK_THAT(text_error(""), ContainsText("not valid JSON"));
  CHECK_THAT(text_error("3"), ContainsText("not a JSON object"));
  CHECK_THAT(text_error(std::string("{\"a\xff\": 1}")), ContainsText("not valid JSON"));
  CHECK_THAT(error_of(with("hidden_act", std::string(1000, 'x'))), ContainsText("only silu"));
}

TEST_CASE("Missing folders and files are named") {
  CHECK_THROWS_WITH(ModelConfig::from_folder("/nowhere/model"),
                    ContainsText("/nowhere/model: no such folder"));
  const testing::TemporaryFolder folder;
  CHECK_THROWS_WITH(ModelConfig::from_folder(folder.path()),
                    ContainsText("config.json: no such file"));
  test::write_file(folder.path() / "config.json", good().dump());
  CHECK_NOTHROW(ModelConfig::from_folder(folder.path()));
  test::write_file(folder.path() / "generation_config.json", "{");
  CHECK_THROWS_WITH(ModelConfig::from_folder(folder.path()),
                    ContainsText("generation_config.json: not valid JSON"));
}

}  // namespace
}  // namespace tandem
