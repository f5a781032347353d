#include "unit/tokenizer_fixtures.h"

#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace tandem::testing {

std::vector<std::string> fixture_names() {
  return {"cased_invert",
          "digits_punctuation",
          "gemma",
          "gpt2",
          "gpt2_prefix_space",
          "llama2",
          "llama3",
          "metaspace_always",
          "mistral",
          "normalizers",
          "qwen2"};
}

nlohmann::json fixture(const std::string& name) {
  const auto path =
      std::filesystem::path(TANDEM_SOURCE_DIR) / "tests/unit/data/tokenizers" / (name + ".json");
  std::ifstream stream(path);
  if (!stream) throw std::runtime_error("no fixture " + path.string());
  return nlohmann::json::parse(stream);
}

Tokenizer fixture_tokenizer(const std::string& name) {
  return Tokenizer::from_json(fixture(name).at("tokenizer").dump(), name + ".json");
}

}  // namespace tandem::testing
