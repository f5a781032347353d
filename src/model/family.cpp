#include "model/family.h"

#include <array>

namespace tandem {

std::span<const FamilyFacts> families() {
  static constexpr std::array<FamilyFacts, 4> kFamilies = {{
      // Llama 2, 3, 3.x
      {.architecture = "LlamaForCausalLM",
       .model_type = "llama",
       .qkv_bias = BiasRule::kAsConfigured,
       .output_bias = BiasRule::kAsConfigured,
       .mlp_bias = BiasRule::kAsConfigured},
      {.architecture = "MistralForCausalLM", .model_type = "mistral", .window_by_default = true},
      // Qwen 2, 2.5
      {.architecture = "Qwen2ForCausalLM", .model_type = "qwen2", .qkv_bias = BiasRule::kAlways},
      {.architecture = "Qwen3ForCausalLM",
       .model_type = "qwen3",
       .qkv_bias = BiasRule::kAsConfigured,
       .output_bias = BiasRule::kAsConfigured,
       .qk_norm = true,
       .default_head_dim = 128},
  }};
  return kFamilies;
}

std::string layer_tensor(std::string_view pattern, int layer) {
  constexpr std::string_view kPlaceholder = "{}";
  const size_t at = pattern.find(kPlaceholder);
  if (at == std::string_view::npos) return std::string(pattern);
  std::string name(pattern.substr(0, at));
  name += std::to_string(layer);
  name += pattern.substr(at + kPlaceholder.size());
  return name;
}

}  // namespace tandem
