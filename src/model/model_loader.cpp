#include "model/model_loader.h"

namespace tandem {

std::unique_ptr<Transformer> load_model(const std::filesystem::path& folder, Backend& backend,
                                        const LoadOptions& options) {
  const ModelConfig config = ModelConfig::from_folder(folder);
  const std::unique_ptr<WeightSource> source = open_weights(folder);
  Transformer::Options wanted;
  wanted.limits.max_positions =
      options.max_positions > 0 ? options.max_positions : config.max_position_embeddings;
  wanted.limits.max_rows = options.max_rows;
  wanted.limits.max_logits_rows = options.max_logits_rows;
  wanted.limits.max_sequences = options.max_sequences;
  wanted.role = options.role;
  wanted.progress = options.progress;
  return std::make_unique<Transformer>(config, ModelShard::whole(config), *source, backend, wanted);
}

}  // namespace tandem
