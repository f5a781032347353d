#include "model/checkpoint.h"

#include "model/expansion.h"
#include "tandem/error.h"

namespace tandem {
namespace {

const ModelShape& shape_named(const std::string& name) {
  std::string known = "none";
  for (const ModelShape& shape : model_shapes()) {
    if (shape.name == name) return shape;
    known += ", " + std::string(shape.name);
  }
  throw ConfigError("a model cannot be expanded to '" + name + "'; expected one of " + known);
}

}  // namespace

ModelConfig Checkpoint::config() const {
  const ModelConfig stored = ModelConfig::from_folder(folder);
  return expand == "none" ? stored : expanded_config(stored, shape_named(expand));
}

bool Checkpoint::has_weights() const {
  std::error_code error;
  return std::filesystem::exists(folder / "model.safetensors", error) ||
         std::filesystem::exists(folder / "model.safetensors.index.json", error);
}

std::unique_ptr<WeightSource> Checkpoint::open() const {
  std::unique_ptr<WeightSource> stored = open_weights(folder);
  if (expand == "none") return stored;
  const ModelConfig small = ModelConfig::from_folder(folder);
  return expand_weights(std::move(stored), small, expanded_config(small, shape_named(expand)),
                        never_used_token(folder));
}

}  // namespace tandem
