#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "model/model_config.h"
#include "model/weight_source.h"

namespace tandem {

/// A model as people name it: a Hugging Face folder and, for measuring, the shape that its function
/// is to be computed in.
struct Checkpoint {
  std::filesystem::path folder;
  std::string expand = "none";  ///< or the name of one of `model_shapes()`

  Checkpoint() = default;
  Checkpoint(std::filesystem::path path, std::string shape = "none")
      : folder(std::move(path)), expand(std::move(shape)) {}

  /// @throws ModelError as ModelConfig::from_folder and `expanded_config`; ConfigError for an
  /// unknown shape
  ModelConfig config() const;
  /// Whether the folder holds weights, or only what plans need.
  bool has_weights() const;
  /// @throws ModelError as `open_weights` and `never_used_token`
  std::unique_ptr<WeightSource> open() const;
};

}  // namespace tandem
