#include "support/model_folder.h"

#include <cstring>
#include <fstream>
#include <iterator>

namespace tandem::testing {

namespace fs = std::filesystem;

namespace {

constexpr size_t kHeaderAlignment = 8;  // so that tensors stay aligned to their elements

std::string read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Replaces a link by a file, so that what it pointed to stays untouched.
void write_bytes(const fs::path& path, const std::string& bytes) {
  fs::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace

fs::path demo_main() { return fs::path(TANDEM_SOURCE_DIR) / "models/demo/main"; }
fs::path demo_draft() { return fs::path(TANDEM_SOURCE_DIR) / "models/demo/draft"; }
fs::path demo_cost_table() { return fs::path(TANDEM_SOURCE_DIR) / "tests/data/cost_table.json"; }

ModelFolder::ModelFolder(const fs::path& original) {
  for (const auto& file : fs::directory_iterator(original)) {
    fs::create_symlink(fs::absolute(file.path()), path() / file.path().filename());
  }
}

void ModelFolder::edit_json(const std::string& file, const EditJson& edit) const {
  edit_bytes(file, [&](std::string& bytes) {
    nlohmann::json document = nlohmann::json::parse(bytes);
    edit(document);
    bytes = document.dump();
  });
}

void ModelFolder::edit_bytes(const std::string& file,
                             const std::function<void(std::string&)>& edit) const {
  std::string bytes = read_bytes(path() / file);
  edit(bytes);
  write_bytes(path() / file, bytes);
}

void ModelFolder::edit_header(const std::string& file, const EditJson& edit) const {
  edit_bytes(file, [&](std::string& bytes) {
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    nlohmann::json header = nlohmann::json::parse(bytes.substr(sizeof length, length));
    edit(header);
    std::string text = header.dump();
    while (text.size() % kHeaderAlignment != 0) text += ' ';
    const uint64_t new_length = text.size();
    std::string changed(sizeof new_length, '\0');
    std::memcpy(changed.data(), &new_length, sizeof new_length);
    bytes = changed + text + bytes.substr(sizeof length + length);
  });
}

void ModelFolder::remove(const std::string& file) const { fs::remove(path() / file); }

}  // namespace tandem::testing
