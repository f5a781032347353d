#include "model/weight_formats.h"

#include <string>
#include <utility>

#include "tandem/error.h"

namespace tandem {

Quantization parse_quantization(std::string_view name) {
  if (name == "none") return Quantization::kNone;
  if (name == "fp8") return Quantization::kFp8;
  if (name == "int4") return Quantization::kInt4;
  throw ConfigError("quantization is '" + std::string(name) + "'; expected one of none, fp8, int4");
}

FormatOf quantized_formats(Quantization quantization, const ModelConfig& config, FormatOf others) {
  if (quantization == Quantization::kNone) return others;
  const TensorNames& names = config.family->names;
  const std::string head(config.tie_word_embeddings ? names.embedding : names.head);
  const WeightFormat format =
      quantization == Quantization::kFp8 ? WeightFormat::kFp8E4M3 : WeightFormat::kInt4Group128;
  return [format, head, others = std::move(others)](std::string_view tensor) {
    constexpr std::string_view kProjection = "_proj.weight";
    if (tensor == head) return WeightFormat::kFp8E4M3;
    return tensor.ends_with(kProjection) ? format : others(tensor);
  };
}

}  // namespace tandem
