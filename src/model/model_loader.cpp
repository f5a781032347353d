#include "model/model_loader.h"

namespace tandem {

std::unique_ptr<Transformer> load_model(const Checkpoint& checkpoint, Backend& backend,
                                        const LoadOptions& options) {
  const ModelConfig config = checkpoint.config();
  const std::unique_ptr<WeightSource> source = checkpoint.open();
  Transformer::Options wanted;
  wanted.limits.max_positions =
      options.max_positions > 0 ? options.max_positions : config.max_position_embeddings;
  wanted.limits.max_rows = options.max_rows;
  wanted.limits.max_logits_rows = options.max_logits_rows;
  wanted.limits.max_sequences = options.max_sequences;
  wanted.role = options.role;
  wanted.formats = quantized_formats(options.quantization, config, formats_as_stored(*source));
  wanted.progress = options.progress;
  return std::make_unique<Transformer>(config, ModelShard::whole(config), *source, backend, wanted);
}

}  // namespace tandem
