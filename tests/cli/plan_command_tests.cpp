#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "run_tandem.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

using nlohmann::ordered_json;
using tandem::testing::ProcessResult;
using tandem::testing::run_tandem;

namespace {

const std::filesystem::path kSource = TANDEM_SOURCE_DIR;

std::string at(const char* path) { return (kSource / path).string(); }

std::vector<std::string> keys_of(const ordered_json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

/// The arguments of a documented command, its paths made to stand in the source tree.
std::vector<std::string> arguments_of(const std::string& command) {
  std::istringstream words(command);
  std::vector<std::string> arguments;
  for (std::string word; words >> word;) {
    const bool is_path = std::filesystem::exists(kSource / word);
    arguments.push_back(is_path ? at(word.c_str()) : word);
  }
  return arguments;
}

}  // namespace

TEST_CASE("plan --json prints exactly the documented object") {
  const ProcessResult result =
      run_tandem({"plan", "--config", at("configs/demo.json"), "--devices",
                  "cpu:0=64MiB,cpu:1=64MiB", "--split", "layer", "--json"});
  CAPTURE(result.out, result.err);
  REQUIRE(result.exit_code == 0);
  CHECK(result.err.empty());
  const ordered_json plan = ordered_json::parse(result.out);
  using Keys = std::vector<std::string>;
  CHECK(keys_of(plan) == Keys{"fits", "devices", "max_model_len", "placement", "shortfall"});
  CHECK(plan["fits"] == true);
  CHECK(plan["max_model_len"] == 2048);
  CHECK(plan["shortfall"].is_null());
  for (const ordered_json& device : plan["devices"]) {
    CHECK(keys_of(device) == Keys{"name", "capacity_bytes", "reserve_bytes", "free_bytes", "rows"});
    uint64_t sum = device["reserve_bytes"].get<uint64_t>() + device["free_bytes"].get<uint64_t>();
    for (const ordered_json& row : device["rows"]) {
      CHECK(keys_of(row) == Keys{"model", "purpose", "bytes"});
      sum += row["bytes"].get<uint64_t>();
    }
    CHECK(sum == device["capacity_bytes"]);
  }
  for (const ordered_json& model : plan["placement"]) {
    CHECK(keys_of(model) == Keys{"model", "split", "devices", "layers"});
    CHECK(model["devices"].size() == model["layers"].size());
  }
}

TEST_CASE("a plan that does not fit prints itself, says what is short, and exits with 3") {
  const std::vector<std::string> arguments = {"plan",      "--config",    at("configs/demo.json"),
                                              "--devices", "cpu:0=30MiB", "--max-model-len",
                                              "2048"};
  const ProcessResult table = run_tandem(arguments);
  CHECK(table.exit_code == 3);
  CHECK(table.out.find("MISSING") != std::string::npos);
  CHECK(table.err.find("tandem: error: does not fit: cpu:0 is ") == 0);
  CHECK(table.err.find("the largest context that would fit is ") != std::string::npos);
  CHECK(table.err.find('\n') == table.err.size() - 1);

  std::vector<std::string> with_json = arguments;
  with_json.push_back("--json");
  const ProcessResult json = run_tandem(with_json);
  CHECK(json.exit_code == 3);
  const ordered_json plan = ordered_json::parse(json.out);
  CHECK(plan["fits"] == false);
  CHECK(plan["shortfall"]["device"] == "cpu:0");
  CHECK(plan["shortfall"]["max_model_len"] > 0);

  const ProcessResult generate =
      run_tandem({"generate", "--config", at("configs/demo.json"), "--prompt", "x", "--device",
                  "cpu:0=20MiB", "--max-model-len", "2048"});
  CHECK(generate.exit_code == 3);
  CHECK(generate.err.find("cpu:0 is ") != std::string::npos);
}

TEST_CASE("a plan that makes no sense exits with 2") {
  const std::string demo = at("configs/demo.json");
  for (const std::vector<std::string>& options :
       std::vector<std::vector<std::string>>{{},
                                             {"--config", "missing.json"},
                                             {"--main", "missing"},
                                             {"--config", demo, "--devices", "24GB"},
                                             {"--config", demo, "--devices", ""},
                                             {"--config", demo, "--split", "rows"},
                                             {"--config", demo, "--max-model-len", "4096"},
                                             {"--config", demo, "--max-model-len", "0"},
                                             {"--config", demo, "--max-model-len", "x"}}) {
    std::vector<std::string> arguments = {"plan"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const ProcessResult result = run_tandem(arguments);
    CAPTURE(arguments, result.err);
    CHECK(result.exit_code == 2);
    CHECK(result.out.empty());
    CHECK(result.err.find("tandem: error: ") == 0);
  }
}

TEST_CASE("a model whose head size GPUs do not take exits with 2, and runs on the CPU") {
  const tandem::testing::TemporaryFolder folder;
  ordered_json config = ordered_json::parse(std::ifstream(at("models/demo/main/config.json")));
  config["head_dim"] = 80;
  std::ofstream(folder.path() / "config.json") << config;
  const std::string model = folder.path().string();
  const ProcessResult gpu = run_tandem({"plan", "--main", model, "--devices", "24GiB"});
  CAPTURE(gpu.err);
  CHECK(gpu.exit_code == 2);
  CHECK(gpu.out.empty());
  CHECK(
      gpu.err.find("config.json: head_dim is 80; attention on a GPU takes 32, 64, 96, 128, 256") !=
      std::string::npos);
  CHECK(run_tandem({"plan", "--main", model, "--devices", "cpu:0=24GiB"}).exit_code == 0);
}

TEST_CASE("a pair that cannot gain is warned about on stderr") {
  const std::string model = at("tests/data/configs/llama-8b");
  const ProcessResult result =
      run_tandem({"plan", "--main", model, "--draft", model, "--devices", "80GiB"});
  CHECK(result.exit_code == 0);
  CHECK(result.err.find("tandem: warning: no number of drafted tokens") == 0);
}

TEST_CASE("docs/memory.md shows what the command prints") {
  std::ifstream file(kSource / "docs/memory.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  constexpr std::string_view kBegin = "```console\n$ tandem ";
  int commands = 0;
  for (size_t at_block = text.find(kBegin); at_block != std::string::npos;
       at_block = text.find(kBegin, at_block + 1)) {
    const size_t begin = at_block + kBegin.size();
    const size_t line_end = text.find('\n', begin);
    const std::string shown = text.substr(line_end + 1, text.find("```", line_end) - line_end - 1);
    const std::string command = text.substr(begin, line_end - begin);
    const ProcessResult result = run_tandem(arguments_of(command));
    INFO("to refresh the page: tools/refresh_docs.py build/bin/tandem docs/memory.md");
    CAPTURE(command);
    std::string expected = result.out + result.err;
    if (result.exit_code != 0) expected += "$ echo $?\n" + std::to_string(result.exit_code) + "\n";
    CHECK(shown == expected);
    ++commands;
  }
  CHECK(commands >= 8);
}
