#pragma once

#include <vector>

#include "model/model_config.h"

namespace tandem {

/// Rotary frequencies 1 / theta^(2i / head_dim), stretched as `rope` says (Su et al. 2021).
/// Computed in float32 in the order of operations that Hugging Face uses, so that angles agree at
/// long positions too.
/// @return head_dim / 2 of them, the fastest first
std::vector<float> rope_frequencies(const RopeConfig& rope, int head_dim);

}  // namespace tandem
