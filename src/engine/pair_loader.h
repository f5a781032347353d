#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "model/language_model.h"
#include "model/transformer.h"
#include "spec/speculative_decoder.h"
#include "tandem/config.h"
#include "tandem/engine.h"
#include "tokenizer/tokenizer.h"

namespace tandem {

/// Everything that decoding needs, loaded. Members are destroyed from the last to the first, so
/// that users go before what they use, and memory before its reservation.
struct LoadedPair {
  MemoryReservation reservation;
  std::vector<std::unique_ptr<Backend>> backends;  ///< by device of the plan; null where unused
  std::optional<Tokenizer> tokenizer;  ///< the main model's; never empty in a loaded pair
  std::vector<int32_t> eos_token_ids;
  std::unique_ptr<Transformer> draft;  ///< null unless the method is "draft_model"
  std::vector<uint8_t> draft_tokens;   ///< [id]: draft and main model mean the same by it
  std::unique_ptr<LanguageModel> main;
  std::unique_ptr<SpeculativeDecoder> decoder;
  EngineInfo info;
  MemoryPlan plan;
  std::vector<MemoryUse> memory;
};

/// Checks the pair (configurations, contexts, vocabularies), plans and reserves its memory, then
/// loads the draft model and the main model into it.
/// @throws ConfigError, ModelError, MemoryError, DeviceError, CancelledError; by then everything
/// that was taken has been given back
LoadedPair load_pair(const Config& config, const EngineOptions& options);

/// A process's part of a pair that the process of rank 0 loads at the same time: loads its ranks,
/// then does what rank 0 asks for. Returns when the pair is gone.
/// @throws as load_pair; DeviceError when the group failed
void serve_pair(const Config& config, const EngineOptions& options);

}  // namespace tandem
