#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "support/catch.h"
#include "support/temporary_folder.h"
#include "tandem/config.h"
#include "tandem/error.h"

using nlohmann::json;
using tandem::Config;
using tandem::ConfigError;
namespace fs = std::filesystem;

namespace {

const char* const kMinimal = R"({"main": {"model": "m"}, "draft": {"model": "d"}})";

Config parse(const std::string& text) { return Config::from_json(text, "", "c.json"); }

std::string error_of(const std::string& text) {
  try {
    parse(text);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

/// The message for a configuration whose `section` holds `members`.
std::string error_in(const std::string& section, const std::string& members) {
  json document = json::parse(kMinimal);
  document[section].update(json::parse("{" + members + "}"));
  return error_of(document.dump());
}

json schema() {
  std::ifstream file(fs::path(TANDEM_SOURCE_DIR) / "configs/schema.json");
  return json::parse(file);
}

/// "section.key" of every leaf of the schema.
std::set<std::string> schema_keys() {
  std::set<std::string> keys;
  const json document = schema();
  for (const auto& [section, description] : document["properties"].items()) {
    if (!description.contains("properties")) continue;
    for (const auto& member : description["properties"].items()) {
      keys.insert(section + "." + member.key());
    }
  }
  return keys;
}

std::set<std::string> written_keys(const json& document) {
  std::set<std::string> keys;
  for (const auto& [section, members] : document.items()) {
    for (const auto& member : members.items()) keys.insert(section + "." + member.key());
  }
  return keys;
}

}  // namespace

TEST_CASE("A minimal configuration has the documented defaults") {
  const Config config = parse(kMinimal);
  CHECK(config.main.devices == "auto");
  CHECK_FALSE(config.main.max_model_len);
  CHECK(config.draft->device == "auto");
  CHECK(config.speculation.method == "draft_model");
  CHECK_FALSE(config.speculation.num_speculative_tokens);
  CHECK(config.speculation.max_speculative_tokens == 8);
  CHECK_FALSE(config.speculation.cost_table);
  CHECK(config.speculation.rejection_sample_method == "block");
  CHECK_FALSE(config.memory.reserve_bytes);
  CHECK_FALSE(config.memory.limit_bytes);
  CHECK(config.sampling.temperature == 0.0f);
  CHECK(config.sampling.max_tokens == 256);
  CHECK_FALSE(config.sampling.seed);
}

TEST_CASE("Every key is read") {
  const Config config = parse(R"({
    "$schema": "schema.json",
    "main": {"model": "m", "devices": ["cpu:0=64MiB", "cpu:1=1GiB"], "split": "layer", "dtype": "float16",
             "quantization": "fp8", "expand": "8B", "max_model_len": 77},
    "draft": {"model": "d", "device": "cuda:1", "quantization": "int4", "expand": "1B"},
    "speculation": {"method": "ngram", "num_speculative_tokens": 15, "max_speculative_tokens": 3,
                    "cost_table": "costs.json", "rejection_sample_method": "coupled", "prompt_lookup_min": 1, "prompt_lookup_max": 9,
                    "allow_vocabulary_mismatch": true},
    "memory": {"reserve": {"cuda:0": "1GiB", "cpu": 5, "default": "2KiB"}, "limit": "1.5GiB"},
    "sampling": {"temperature": 0.7, "top_p": 0.5, "top_k": 11, "min_p": 0.25, "repetition_penalty": 1.5,
                 "presence_penalty": -1.0, "frequency_penalty": 2, "seed": 18446744073709551615,
                 "max_tokens": 9, "stop": ["a", "\n"], "ignore_eos": true},
    "communication": {"all_reduce": "nccl"}})");
  CHECK(config.main.devices == "cpu:0=64MiB,cpu:1=1GiB");
  CHECK(config.main.split == "layer");
  CHECK(config.main.dtype == "float16");
  CHECK(config.main.quantization == "fp8");
  CHECK(config.main.expand == "8B");
  CHECK(config.main.max_model_len == 77);
  CHECK(config.draft->device == "cuda:1");
  CHECK(config.draft->quantization == "int4");
  CHECK(config.draft->expand == "1B");
  CHECK(config.speculation.method == "ngram");
  CHECK(config.speculation.num_speculative_tokens == 15);
  CHECK(config.speculation.max_speculative_tokens == 3);
  CHECK(config.speculation.cost_table == "costs.json");
  CHECK(config.speculation.rejection_sample_method == "coupled");
  CHECK(config.speculation.prompt_lookup_min == 1);
  CHECK(config.speculation.prompt_lookup_max == 9);
  CHECK(config.speculation.allow_vocabulary_mismatch);
  CHECK(config.memory.reserve_bytes == 2048);
  CHECK(config.memory.reserve_bytes_by_device ==
        std::map<std::string, uint64_t>{{"cuda:0", 1u << 30}, {"cpu:0", 5}});
  CHECK(config.memory.limit_bytes == uint64_t{3} << 29);
  CHECK(config.sampling.temperature == 0.7f);
  CHECK(config.sampling.top_p == 0.5f);
  CHECK(config.sampling.top_k == 11);
  CHECK(config.sampling.min_p == 0.25f);
  CHECK(config.sampling.repetition_penalty == 1.5f);
  CHECK(config.sampling.presence_penalty == -1.0f);
  CHECK(config.sampling.frequency_penalty == 2.0f);
  CHECK(config.sampling.seed == UINT64_MAX);
  CHECK(config.sampling.max_tokens == 9);
  CHECK(config.sampling.stop == std::vector<std::string>{"a", "\n"});
  CHECK(config.sampling.ignore_eos);
  CHECK(config.communication.all_reduce == "nccl");

  SECTION("and written so that it reads back") {
    const std::string written = config.to_json();
    CHECK(parse(written).to_json() == written);
    CHECK(json::parse(written)["sampling"]["temperature"].dump() == "0.7");
    CHECK(json::parse(written)["memory"]["reserve"]["cuda:0"] == "1GiB");
  }
}

TEST_CASE("A configuration without a draft section reads, and null stands for none") {
  CHECK_FALSE(parse(R"({"main": {"model": "m"}})").draft);
  CHECK_FALSE(parse(R"({"main": {"model": "m"}, "draft": null})").draft);
}

TEST_CASE("Schema and parser know the same keys and defaults") {
  const json document = schema();
  const json defaults = json::parse(parse(kMinimal).to_json());
  CHECK(schema_keys() == written_keys(defaults));
  for (const auto& [section, members] : defaults.items()) {
    for (const auto& [key, value] : members.items()) {
      const json& described = document["properties"][section]["properties"][key];
      INFO(section << "." << key);
      CHECK(described.contains("description"));
      if (key == "model") continue;
      REQUIRE(described.contains("default"));
      CHECK(described["default"] == value);
    }
  }
}

TEST_CASE("Schema and parser know the same choices and bounds") {
  const json document = schema();
  for (const auto& [section, description] : document["properties"].items()) {
    if (!description.contains("properties")) continue;
    for (const auto& [key, described] : description["properties"].items()) {
      INFO(section << "." << key);
      const auto error_with = [&, name = section, member = key](const json& value) {
        return error_in(name, json(member).dump() + ": " + value.dump());
      };
      if (described.contains("enum")) {
        for (const json& choice : described["enum"]) CHECK(error_with(choice) == "no error");
        for (const json& choice : described["enum"]) {
          CHECK_THAT(error_with("other"), ContainsText(choice.dump()));
        }
      }
      json bounds = described;
      if (described.contains("oneOf")) bounds = described["oneOf"].back();
      if (bounds.contains("minimum")) {
        CHECK(error_with(bounds["minimum"]) == "no error");
        CHECK(error_with(bounds["minimum"].get<double>() - 1) != "no error");
        if (bounds["minimum"].is_number_integer()) {
          CHECK(error_with(bounds["minimum"].get<int64_t>() - 1) != "no error");
        }
      }
      if (bounds.contains("maximum")) {
        CHECK(error_with(bounds["maximum"]) == "no error");
        CHECK(error_with(bounds["maximum"].get<double>() * 2) != "no error");
      }
      if (bounds.contains("exclusiveMinimum")) {
        CHECK(error_with(bounds["exclusiveMinimum"]) != "no error");
      }
    }
  }
}

TEST_CASE("An unknown key names the nearest known one") {
  CHECK(error_of(R"({"main": {"model": "m"}, "speculaton": {}})") ==
        "c.json: unknown key \"speculaton\"; the nearest known key is \"speculation\"");
  CHECK(error_in("sampling", R"("temprature": 1)") ==
        "c.json: unknown key \"sampling.temprature\"; the nearest known key is "
        "\"sampling.temperature\"");
  CHECK(error_in("draft", R"("devices": "cpu")") ==
        "c.json: unknown key \"draft.devices\"; the nearest known key is \"draft.device\"");
  CHECK_THAT(error_in("main", R"("a\nb": 1)"), ContainsText(R"("main.a\nb")"));
}

TEST_CASE("A wrong type names key, value, found and expected type") {
  CHECK(error_in("sampling", R"("temperature": "hot")") ==
        R"(c.json: "sampling.temperature" is "hot" (a string); expected a number)");
  CHECK_THAT(error_in("main", R"("model": 3)"), ContainsText(R"("main.model" is 3 (an integer))"));
  CHECK_THAT(error_in("main", R"("devices": true)"), ContainsText("(a boolean)"));
  CHECK_THAT(error_in("main", R"("devices": [1])"), ContainsText("a list of device names"));
  CHECK_THAT(error_in("main", R"("split": null)"), ContainsText("(null)"));
  CHECK_THAT(error_in("main", R"("max_model_len": 1.5)"), ContainsText("is 1.5 (a number)"));
  CHECK_THAT(error_in("main", R"("max_model_len": "big")"),
             ContainsText("expected \"auto\" or an integer"));
  CHECK_THAT(error_in("speculation", R"("allow_vocabulary_mismatch": 1)"),
             ContainsText("true or false"));
  CHECK_THAT(error_in("sampling", R"("stop": "x")"), ContainsText("a list of strings"));
  CHECK_THAT(error_in("sampling", R"("stop": [1])"), ContainsText("a list of strings"));
  CHECK_THAT(error_in("sampling", R"("seed": -1)"), ContainsText("18446744073709551615"));
  CHECK_THAT(error_in("sampling", R"("seed": 18446744073709551616)"), ContainsText("(a number)"));
  CHECK_THAT(error_of(R"({"main": []})"),
             ContainsText(R"("main" is [] (a list); expected an object)"));
  CHECK_THAT(error_of("[1]"), ContainsText("holds a list; expected an object"));
}

TEST_CASE("A reserve may be null, as by default, or nothing") {
  const auto reserve = [](const std::string& value) {
    return parse(R"({"main": {"model": "m"}, "memory": {"reserve": )" + value + "}}")
        .memory.reserve_bytes;
  };
  CHECK_FALSE(reserve("null"));
  CHECK(reserve("0") == 0u);
  CHECK(reserve("\"256MiB\"") == 256u << 20);
}

TEST_CASE("A value out of range names the range") {
  CHECK_THAT(error_in("sampling", R"("temperature": -0.5)"),
             ContainsText("sampling.temperature is -0.5; expected 0 (greedy) or a number in"));
  CHECK_THAT(error_in("sampling", R"("temperature": 1e39)"), ContainsText("sampling.temperature"));
  CHECK_THAT(error_in("sampling", R"("top_p": 0)"), ContainsText("expected a number in (0, 1]"));
  CHECK_THAT(error_in("sampling", R"("top_p": 1.01)"), ContainsText("expected a number in (0, 1]"));
  CHECK_THAT(error_in("sampling", R"("stop": [""])"), ContainsText("empty string"));
  CHECK_THAT(error_in("speculation", R"("num_speculative_tokens": 16)"),
             ContainsText("is 16; expected \"auto\" or an integer from 0 to 15"));
  CHECK_THAT(error_in("speculation", R"("max_speculative_tokens": 0)"),
             ContainsText("from 1 to 15"));
  CHECK_THAT(error_in("speculation", R"("prompt_lookup_max": 99999999999999999999)"),
             ContainsText("integer"));
  CHECK_THAT(error_in("speculation", R"("prompt_lookup_max": 99999999999)"),
             ContainsText("from 1 to 32"));
  CHECK_THAT(error_in("speculation", R"("method": "magic")"),
             ContainsText(R"(is "magic"; expected one of "draft_model", "ngram", "none")"));
  CHECK_THAT(error_in("memory", R"("reserve": "12MB")"), ContainsText("KiB, MiB or GiB"));
  CHECK_THAT(error_in("memory", R"("limit": 0)"), ContainsText("no memory"));
  CHECK_THAT(error_in("memory", R"("limit": {"gpu": 1})"), ContainsText("device 'gpu'"));
  CHECK_THAT(error_in("memory", R"("limit": {"cpu": 1, "cpu:0": 2})"), ContainsText("twice"));
  CHECK_THAT(error_in("memory", R"("limit": {"cpu:0=1GiB": 1})"), ContainsText("without its size"));
  CHECK_THAT(error_in("main", R"("devices": "tpu:0")"),
             ContainsText("\"main.devices\" is refused: device 'tpu:0'"));
  CHECK_THAT(error_in("main", R"("devices": "cuda:0,cuda:0")"), ContainsText("twice"));
  CHECK_THAT(error_in("main", R"("devices": [])"), ContainsText("device ''"));
  CHECK_THAT(error_in("main", R"("model": "")"), ContainsText("\"main.model\" is missing"));
  CHECK_THAT(error_in("main", R"("model": "a\u0000b")"), ContainsText("zero character"));
  CHECK_THAT(error_of("{}"), ContainsText("\"main.model\" is missing"));
}

TEST_CASE("Broken JSON is refused with line and column") {
  CHECK_THAT(error_of("{\n  \"main\": }"), ContainsText("c.json:2:11: not valid JSON"));
  CHECK_THAT(error_of(""), ContainsText("c.json:1:1: not valid JSON"));
  CHECK_THAT(error_of(std::string(kMinimal) + " x"), ContainsText("c.json:1:51: not valid JSON"));
  CHECK_THAT(error_of("{\"main\": {\"model\": \"\xff\"}}"), ContainsText("UTF-8"));
  CHECK_THAT(error_of(R"({"main": {"model": 1e999}})"), ContainsText("not valid JSON"));
  CHECK_THAT(error_of(R"({"main": {"model": "a", "model": "b"}})"),
             ContainsText("\"model\" stands twice"));
  CHECK_THAT(error_of(R"({"main": {"model": "a"}, "main": {}})"),
             ContainsText("\"main\" stands twice"));
  const std::string deep(100000, '[');
  CHECK_THAT(error_of(deep), ContainsText("nested deeper"));
  for (const std::string text : {"{\"a\nb\": \x01}", "{\n\n", "nul", "{\"a\": 01}"}) {
    const std::string error = error_of(text);
    CAPTURE(error);
    CHECK(error.find('\n') == std::string::npos);
    CHECK(error.find("exception") == std::string::npos);
    CHECK(error.find("last read") == std::string::npos);
  }
}

TEST_CASE("Values that do not fit together are refused before anything is loaded") {
  Config config = parse(R"({"main": {"model": "m"}})");
  CHECK_THROWS_WITH(config.validate(), ContainsText("no draft model is given"));
  config.speculation.method = "ngram";
  CHECK_NOTHROW(config.validate());
  config.speculation.prompt_lookup_min = 5;
  CHECK_THROWS_WITH(config.validate(), ContainsText("exceeds"));
  config = parse(kMinimal);
  config.sampling.top_p = 0;
  CHECK_THROWS_AS(config.validate(), ConfigError);
  config = parse(kMinimal);
  config.speculation.max_speculative_tokens = 16;
  CHECK_THROWS_WITH(config.validate(), ContainsText("from 1 to 15"));
}

TEST_CASE("Model paths are looked up beside the file first") {
  const tandem::testing::TemporaryFolder folder;
  fs::create_directories(folder.path() / "configs");
  fs::create_directories(folder.path() / "models/m");
  std::ofstream(folder.path() / "configs/c.json")
      << R"({"main": {"model": "../models/m"}, "draft": {"model": "no/d"}})";
  const Config config = Config::from_file(folder.path() / "configs/c.json");
  CHECK(config.main.model == folder.path() / "models/m");
  CHECK(config.draft->model == "no/d");
  CHECK(config.source == (folder.path() / "configs/c.json").string());
  CHECK_THROWS_WITH(Config::from_file(folder.path() / "nowhere.json"),
                    ContainsText("nowhere.json"));
  CHECK_THROWS_AS(Config::from_file(folder.path()), ConfigError);
}

TEST_CASE("The bundled configuration is valid and finds its models") {
  const Config config = Config::from_file(fs::path(TANDEM_SOURCE_DIR) / "configs/demo.json");
  CHECK_NOTHROW(config.validate());
  CHECK(fs::exists(config.main.model / "config.json"));
  CHECK(fs::exists(config.draft->model / "config.json"));
}

TEST_CASE("Damaged configurations give an error or a configuration, never anything else") {
  const std::string good = parse(kMinimal).to_json();
  std::mt19937 random(20240611);
  for (int trial = 0; trial < 5000; ++trial) {
    std::string text = good;
    for (int edits = 1 + static_cast<int>(random() % 3); edits > 0; --edits) {
      const size_t at = random() % text.size();
      if (random() % 2 == 0) {
        text[at] = static_cast<char>(random() % 256);
      } else {
        text.erase(at, 1 + random() % 20);
      }
    }
    try {
      parse(text).to_json();
    } catch (const ConfigError&) {
    }
  }
}
