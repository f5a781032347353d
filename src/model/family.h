#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace tandem {

/// Whether the projections of a block have a bias.
enum class BiasRule : uint8_t { kNever, kAlways, kAsConfigured };

/// How a checkpoint names its tensors. "{}" stands for the layer's number.
struct TensorNames {
  std::string_view embedding = "model.embed_tokens.weight";
  std::string_view final_norm = "model.norm.weight";
  std::string_view head = "lm_head.weight";
  std::string_view attention_norm = "model.layers.{}.input_layernorm.weight";
  std::string_view mlp_norm = "model.layers.{}.post_attention_layernorm.weight";
  // Projections: ".weight" and, where there is one, ".bias" are appended.
  std::string_view query = "model.layers.{}.self_attn.q_proj";
  std::string_view key = "model.layers.{}.self_attn.k_proj";
  std::string_view value = "model.layers.{}.self_attn.v_proj";
  std::string_view output = "model.layers.{}.self_attn.o_proj";
  std::string_view gate = "model.layers.{}.mlp.gate_proj";
  std::string_view up = "model.layers.{}.mlp.up_proj";
  std::string_view down = "model.layers.{}.mlp.down_proj";
  std::string_view query_norm = "model.layers.{}.self_attn.q_norm.weight";
  std::string_view key_norm = "model.layers.{}.self_attn.k_norm.weight";
};

/// What tells one model family from another. The forward reads nothing else about a family.
struct FamilyFacts {
  std::string_view architecture;            ///< as config.json's "architectures" names it
  std::string_view model_type;              ///< as config.json's "model_type" names it
  BiasRule qkv_bias = BiasRule::kNever;     ///< kAsConfigured: "attention_bias"
  BiasRule output_bias = BiasRule::kNever;  ///< kAsConfigured: "attention_bias"
  BiasRule mlp_bias = BiasRule::kNever;     ///< kAsConfigured: "mlp_bias"
  bool qk_norm = false;
  int default_head_dim = 0;  ///< where config.json names none; 0: hidden_size / num_attention_heads
  /// "sliding_window" is in force unless null; otherwise only with "use_sliding_window": true.
  bool window_by_default = false;
  TensorNames names = {};
};

/// Every family that can be run. The table lives as long as the program.
std::span<const FamilyFacts> families();

/// "model.layers.{}.x" -> "model.layers.7.x"
std::string layer_tensor(std::string_view pattern, int layer);

}  // namespace tandem
