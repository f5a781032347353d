// The configurations that are shipped, and those that the documentation shows, are ones that tandem
// accepts.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/catch.h"
#include "tandem/config.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = TANDEM_SOURCE_DIR;

std::string read(const fs::path& path) {
  std::ifstream file(path);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The files of configs/ except the schema.
std::vector<fs::path> ready_configs() {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(kSource / "configs")) {
    const fs::path& path = entry.path();
    if (path.extension() == ".json" && path.filename() != "schema.json") paths.push_back(path);
  }
  return paths;
}

/// What stands between ```json and ``` in a Markdown file.
std::vector<std::string> json_blocks(const fs::path& path) {
  constexpr std::string_view kOpen = "```json\n";
  const std::string text = read(path);
  std::vector<std::string> blocks;
  for (size_t at = text.find(kOpen); at != std::string::npos; at = text.find(kOpen, at)) {
    at += kOpen.size();
    blocks.push_back(text.substr(at, text.find("```", at) - at));
  }
  return blocks;
}

TEST_CASE("every ready configuration is valid and names a pair", "[config]") {
  const auto paths = ready_configs();
  REQUIRE(paths.size() > 1);
  for (const fs::path& path : paths) {
    INFO(path);
    const Config config = Config::from_file(path);
    CHECK_FALSE(config.main.model.empty());
    REQUIRE(config.draft);
    CHECK(config.draft->model != config.main.model);
  }
}

TEST_CASE("the configurations in the documentation are valid", "[config]") {
  for (const char* page : {"README.md", "docs/recipes.md"}) {
    const auto blocks = json_blocks(kSource / page);
    REQUIRE_FALSE(blocks.empty());
    for (const std::string& block : blocks) {
      INFO(page << ":\n" << block);
      CHECK_NOTHROW(Config::from_json(block, kSource / "configs", page));
    }
  }
}

TEST_CASE("the recipe page shows the ready configurations as they are", "[config]") {
  std::vector<nlohmann::json> ready;
  for (const fs::path& path : ready_configs()) {
    auto json = nlohmann::json::parse(read(path));
    json.erase("$schema");
    ready.push_back(json);
  }
  for (const std::string& block : json_blocks(kSource / "docs/recipes.md")) {
    INFO(block);
    CHECK(std::count(ready.begin(), ready.end(), nlohmann::json::parse(block)) == 1);
  }
}

}  // namespace
}  // namespace tandem
