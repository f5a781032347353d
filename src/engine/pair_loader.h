#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "model/transformer.h"
#include "spec/speculative_decoder.h"
#include "tandem/config.h"
#include "tandem/engine.h"
#include "tokenizer/tokenizer.h"

namespace tandem {

/// Everything that decoding needs, loaded. Members are destroyed from the last to the first, so
/// that users go before what they use.
struct LoadedPair {
  std::unique_ptr<Backend> backend;
  std::optional<Tokenizer> tokenizer;  ///< the main model's; never empty in a loaded pair
  std::vector<int32_t> eos_token_ids;
  std::unique_ptr<Transformer> draft;  ///< null unless the method is "draft_model"
  std::unique_ptr<Transformer> main;
  std::unique_ptr<SpeculativeDecoder> decoder;
  EngineInfo info;
};

/// Checks the pair (configurations, contexts, vocabularies), then loads the draft model, then the
/// main model.
/// @throws ConfigError, ModelError, MemoryError, DeviceError
LoadedPair load_pair(const Config& config, const EngineOptions& options);

}  // namespace tandem
