#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "model/family.h"

namespace tandem {

/// Rotary position embedding (Su et al. 2021) and how its frequencies are stretched for long
/// contexts.
struct RopeConfig {
  enum class Kind : uint8_t {
    kDefault,  ///< theta^(-2i / head_dim)
    kLinear,   ///< the same divided by `factor` (position interpolation, Chen et al. 2023)
    kLlama3,   ///< low frequencies divided by `factor`, high ones kept, a ramp between (Llama 3.1)
  };
  Kind kind = Kind::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;              ///< llama3 only
  double high_freq_factor = 4.0;             ///< llama3 only
  int original_max_position_embeddings = 0;  ///< llama3 only

  bool operator==(const RopeConfig&) const = default;
};

/// What a model folder's config.json says, validated and normalised once. Everything behind it may
/// trust the numbers: all are positive and bounded so that products of any three fit in int64.
struct ModelConfig {
  std::string source;                   ///< what messages call the file: "models/x/config.json"
  const FamilyFacts* family = nullptr;  ///< an entry of `families()`; never null in a parsed config
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  float rms_norm_eps = 0;
  float attention_scale = 0;        ///< 1 / sqrt(head_dim); scores are multiplied by it
  int max_position_embeddings = 0;  ///< limited to the sliding window where one is in force
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool output_bias = false;  ///< of o_proj
  bool mlp_bias = false;
  bool qk_norm = false;  ///< an RMS norm over each head of q and k
  RopeConfig rope;
  std::optional<DType> dtype;  ///< torch_dtype or dtype; tensors say their own
  std::optional<int> bos_token_id;
  std::vector<int> eos_token_ids;  ///< config.json and generation_config.json together, ascending
  std::vector<std::string> warnings;  ///< for people

  int query_width() const { return num_heads * head_dim; }
  int kv_width() const { return num_kv_heads * head_dim; }

  /// Reads `folder`/config.json and, where it exists, generation_config.json.
  /// @throws ModelError of one line naming file, key, value and what to do: missing file, unknown
  /// architecture (lists the
  ///         known ones), unknown rope type, quantised checkpoint, value of the wrong type or out
  ///         of range, sizes that contradict each other
  static ModelConfig from_folder(const std::filesystem::path& folder);
  /// @param name what messages call the text
  static ModelConfig from_json(std::string_view text, std::string_view name = "config.json");
  /// Adds the end-of-sequence ids (and a missing bos id) of a generation_config.json.
  void merge_generation_config(std::string_view text,
                               std::string_view name = "generation_config.json");
};

}  // namespace tandem
