#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/model_config.h"
#include "model/rope.h"
#include "model/shard.h"
#include "tandem/error.h"

/// The bytes are a config.json and, once one is accepted, a generation_config.json too. Only
/// tandem::Error may escape, and an accepted config must be fit for planning.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    tandem::ModelConfig config = tandem::ModelConfig::from_json(text, "fuzz.json");
    tandem::ModelShard::whole(config).validate(config);
    if (!(config.attention_scale > 0) || !(config.rms_norm_eps > 0)) std::abort();
    if (tandem::rope_frequencies(config.rope, config.head_dim).empty()) std::abort();
    config.merge_generation_config(text, "fuzz.json");
  } catch (const tandem::Error&) {
  }
  return 0;
}
