#pragma once

#include <string_view>

#include "model/model_config.h"
#include "model/model_weights.h"

namespace tandem {

/// What a model's large matrices are converted to while loading.
enum class Quantization : uint8_t { kNone, kFp8, kInt4 };

/// "none", "fp8", "int4". @throws ConfigError on anything else
Quantization parse_quantization(std::string_view name);

/// The formats of a quantised model: every matrix that each pass reads whole, that is projections
/// and head (the embedding where it is the head), is quantised. Norms, biases and an embedding of
/// its own, of which a pass reads single rows, stay as `others` says. int4 keeps the head in fp8:
/// its rows are what tokens are told apart by.
FormatOf quantized_formats(Quantization quantization, const ModelConfig& config, FormatOf others);

}  // namespace tandem
