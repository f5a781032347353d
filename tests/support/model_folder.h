#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "support/temporary_folder.h"

namespace tandem::testing {

/// The bundled demonstration pair.
std::filesystem::path demo_main();
std::filesystem::path demo_draft();
/// What its rounds cost, for draft lengths that do not depend on the machine.
std::filesystem::path demo_cost_table();

/// A copy of a model folder in a temporary place, for breaking. Weights are links until they are
/// edited.
class ModelFolder {
 public:
  explicit ModelFolder(const std::filesystem::path& original);
  const std::filesystem::path& path() const { return folder_.path(); }
  std::string string() const { return path().string(); }

  using EditJson = std::function<void(nlohmann::json&)>;
  void edit_json(const std::string& file, const EditJson& edit) const;
  /// Replaces the file by what `edit` makes of its bytes.
  void edit_bytes(const std::string& file, const std::function<void(std::string&)>& edit) const;
  /// Changes a safetensors header; the tensors' bytes stay where they are.
  void edit_header(const std::string& file, const EditJson& edit) const;
  void remove(const std::string& file) const;

 private:
  TemporaryFolder folder_;
};

}  // namespace tandem::testing
