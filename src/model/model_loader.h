#pragma once

#include <memory>
#include <string>

#include "model/checkpoint.h"
#include "model/transformer.h"
#include "model/weight_formats.h"

namespace tandem {

/// What `load_model` prepares a model for.
struct LoadOptions {
  int max_positions = 0;    ///< 0: the model's own limit
  int max_rows = 256;       ///< rows of one pass
  int max_logits_rows = 0;  ///< 0: max_rows
  int max_sequences = 1;
  std::string role = "model";
  Quantization quantization = Quantization::kNone;
  LoadProgress progress;
};

/// Loads a model whole onto one device. `backend` must outlive the model.
/// @throws ModelError, MemoryError, UsageError as ModelConfig, WeightSource and Transformer do
std::unique_ptr<Transformer> load_model(const Checkpoint& checkpoint, Backend& backend,
                                        const LoadOptions& options = {});

}  // namespace tandem
