#include "model/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/mapped_file.h"
#include "model/json_text.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxConfigBytes = 16ull << 20;
// Far beyond any model, and small enough that products of three stay inside int64.
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxHidden = 1 << 20;
constexpr int kMaxLayers = 1 << 14;
constexpr int kMaxHeads = 1 << 14;
constexpr int kMaxHeadDim = 1 << 12;
constexpr int kMaxPositions = 1 << 28;
constexpr double kDefaultRopeTheta = 10000.0;
constexpr double kDefaultRmsNormEps = 1e-6;

/// A JSON object with typed look-ups whose errors name file and key. A null value counts as absent.
class Object {
 public:
  Object(const Json& json, std::string source, std::string prefix = "")
      : json_(json), source_(std::move(source)), prefix_(std::move(prefix)) {}

  [[noreturn]] void fail(std::string_view key, const std::string& problem) const {
    throw ModelError(source_ + ": \"" + prefix_ + std::string(key) + "\" " + problem);
  }

  const Json* find(std::string_view key) const {
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }

  /// An object behind the key, or null.
  const Json* object(std::string_view key) const {
    const Json* value = find(key);
    if (value != nullptr && !value->is_object()) {
      fail(key, "is " + shown(*value) + "; an object or null is expected");
    }
    return value;
  }

  int integer(std::string_view key, const Json& value, int64_t least, int64_t most) const {
    const std::string range = "; an integer from " + std::to_string(least) + " to " +
                              std::to_string(most) + " is expected";
    if (!value.is_number_integer()) fail(key, "is " + shown(value) + range);
    const bool too_large =
        value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(most);
    if (too_large || value.get<int64_t>() < least || value.get<int64_t>() > most) {
      fail(key, "is " + shown(value) + range);
    }
    return static_cast<int>(value.get<int64_t>());
  }

  int required_integer(std::string_view key, int64_t most) const {
    const Json* value = find(key);
    if (value == nullptr) fail(key, "is missing; the model cannot be built without it");
    return integer(key, *value, 1, most);
  }

  int integer_or(std::string_view key, int fallback, int64_t most) const {
    const Json* value = find(key);
    return value == nullptr ? fallback : integer(key, *value, 1, most);
  }

  /// A finite number above zero.
  double positive_or(std::string_view key, double fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    const bool good =
        value->is_number() && std::isfinite(value->get<double>()) && value->get<double>() > 0;
    if (!good) fail(key, "is " + shown(*value) + "; a number above 0 is expected");
    return value->get<double>();
  }

  double required_positive(std::string_view key) const {
    if (find(key) == nullptr) fail(key, "is missing");
    return positive_or(key, 0);
  }

  bool boolean_or(std::string_view key, bool fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) fail(key, "is " + shown(*value) + "; true or false is expected");
    return value->get<bool>();
  }

  std::string text_or(std::string_view key, std::string_view fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return std::string(fallback);
    if (!value->is_string()) fail(key, "is " + shown(*value) + "; a string is expected");
    return value->get<std::string>();
  }

 private:
  const Json& json_;
  std::string source_;
  std::string prefix_;
};

const FamilyFacts& find_family(const Object& object) {
  std::string known;
  for (const FamilyFacts& family : families()) {
    known += (known.empty() ? "" : ", ") + std::string(family.architecture);
  }
  const Json* architectures = object.find("architectures");
  if (architectures == nullptr) {
    const std::string type = object.text_or("model_type", "");
    for (const FamilyFacts& family : families()) {
      if (type == family.model_type) return family;
    }
    object.fail("architectures", "is missing; known are: " + known);
  }
  if (!architectures->is_array() || architectures->empty()) {
    object.fail("architectures", "is " + shown(*architectures) + "; a list of names is expected");
  }
  for (const Json& architecture : *architectures) {
    for (const FamilyFacts& family : families()) {
      if (architecture.is_string() &&
          architecture.get_ref<const std::string&>() == family.architecture)
        return family;
    }
  }
  object.fail("architectures",
              "is " + shown(*architectures) + ", which is not known; known are: " + known);
}

void refuse_quantised(const Object& object) {
  const Json* quantisation = object.find("quantization_config");
  if (quantisation == nullptr) return;
  std::string method = "unnamed";
  if (quantisation->is_object() && quantisation->contains("quant_method"))
    method = shown((*quantisation)["quant_method"]);
  object.fail("quantization_config", "says that the checkpoint is quantised (method " + method +
                                         "); use the unquantised bf16, f16 or f32 checkpoint");
}

/// The rope settings of one object, whatever generation of config it belongs to. Old configs say
/// "type" for "rope_type".
RopeConfig parse_rope(const Object& rope, const Object& config) {
  RopeConfig result;
  result.theta =
      rope.positive_or("rope_theta", config.positive_or("rope_theta", kDefaultRopeTheta));
  const std::string type = rope.text_or("rope_type", rope.text_or("type", "default"));
  if (type == "default") return result;
  if (type != "linear" && type != "llama3") {
    rope.fail(
        "rope_type",
        "is " + shown(type) + ", which is not supported; supported are default, linear and llama3");
  }
  result.kind = type == "linear" ? RopeConfig::Kind::kLinear : RopeConfig::Kind::kLlama3;
  result.factor = rope.required_positive("factor");
  if (result.kind == RopeConfig::Kind::kLinear) return result;
  result.low_freq_factor = rope.required_positive("low_freq_factor");
  result.high_freq_factor = rope.required_positive("high_freq_factor");
  result.original_max_position_embeddings =
      rope.required_integer("original_max_position_embeddings", kMaxPositions);
  if (result.high_freq_factor <= result.low_freq_factor) {
    rope.fail("high_freq_factor", "must be above \"low_freq_factor\"");
  }
  return result;
}

RopeConfig find_rope(const Object& config, const std::string& source) {
  static const Json kNothing = Json::object();
  const Json* scaling = config.object("rope_scaling");
  const Json* parameters = config.object("rope_parameters");
  if (scaling == nullptr && parameters == nullptr)
    return parse_rope(Object(kNothing, source), config);
  if (parameters == nullptr) return parse_rope(Object(*scaling, source, "rope_scaling."), config);
  const RopeConfig rope = parse_rope(Object(*parameters, source, "rope_parameters."), config);
  if (scaling != nullptr && parse_rope(Object(*scaling, source, "rope_scaling."), config) != rope) {
    config.fail("rope_parameters", "and \"rope_scaling\" contradict each other; keep one of them");
  }
  return rope;
}

bool bias(BiasRule rule, const Object& object, std::string_view key) {
  switch (rule) {
    case BiasRule::kNever:
      return false;
    case BiasRule::kAlways:
      return true;
    case BiasRule::kAsConfigured:
      return object.boolean_or(key, false);
  }
  return false;
}

std::vector<int> token_ids(const Object& object, std::string_view key, int vocab_size) {
  std::vector<int> ids;
  const Json* value = object.find(key);
  if (value == nullptr) return ids;
  if (!value->is_array()) return {object.integer(key, *value, 0, vocab_size - 1)};
  for (const Json& id : *value) ids.push_back(object.integer(key, id, 0, vocab_size - 1));
  return ids;
}

void read_token_ids(const Object& object, ModelConfig& config) {
  for (int id : token_ids(object, "eos_token_id", config.vocab_size))
    config.eos_token_ids.push_back(id);
  std::sort(config.eos_token_ids.begin(), config.eos_token_ids.end());
  config.eos_token_ids.erase(std::unique(config.eos_token_ids.begin(), config.eos_token_ids.end()),
                             config.eos_token_ids.end());
  const std::vector<int> bos = token_ids(object, "bos_token_id", config.vocab_size);
  if (!config.bos_token_id && !bos.empty()) config.bos_token_id = bos.front();
}

std::optional<DType> find_dtype(const Object& object) {
  const std::string name = object.text_or("dtype", object.text_or("torch_dtype", ""));
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (name == name_of(dtype)) return dtype;
  }
  return std::nullopt;
}

void read_sizes(const Object& object, ModelConfig& config) {
  config.vocab_size = object.required_integer("vocab_size", kMaxVocab);
  config.hidden_size = object.required_integer("hidden_size", kMaxHidden);
  config.intermediate_size = object.required_integer("intermediate_size", kMaxHidden);
  config.num_layers = object.required_integer("num_hidden_layers", kMaxLayers);
  config.num_heads = object.required_integer("num_attention_heads", kMaxHeads);
  config.num_kv_heads = object.integer_or("num_key_value_heads", config.num_heads, kMaxHeads);
  config.max_position_embeddings =
      object.required_integer("max_position_embeddings", kMaxPositions);

  if (config.num_heads % config.num_kv_heads != 0) {
    object.fail("num_attention_heads", std::to_string(config.num_heads) +
                                           " is no multiple of \"num_key_value_heads\" " +
                                           std::to_string(config.num_kv_heads));
  }
  const bool named = object.find("head_dim") != nullptr || config.family->default_head_dim > 0;
  if (!named && config.hidden_size % config.num_heads != 0) {
    object.fail("hidden_size",
                std::to_string(config.hidden_size) + " is no multiple of \"num_attention_heads\" " +
                    std::to_string(config.num_heads) + ", and there is no \"head_dim\"");
  }
  const int fallback = config.family->default_head_dim > 0 ? config.family->default_head_dim
                                                           : config.hidden_size / config.num_heads;
  config.head_dim = object.integer_or("head_dim", fallback, kMaxHeadDim);
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    object.fail("head_dim", "is " + std::to_string(config.head_dim) +
                                "; rotary positions need an even number up to " +
                                std::to_string(kMaxHeadDim));
  }
}

/// A sliding window equals full attention for texts no longer than itself; the context is cut to
/// that.
void apply_window(const Object& object, ModelConfig& config) {
  const bool in_force = object.boolean_or("use_sliding_window", config.family->window_by_default);
  if (!in_force || object.find("sliding_window") == nullptr) return;
  const int window = object.required_integer("sliding_window", std::numeric_limits<int>::max());
  if (window >= config.max_position_embeddings) return;
  config.warnings.push_back(config.source + ": attention has a sliding window of " +
                            std::to_string(window) +
                            " tokens; the context is limited to it instead of " +
                            std::to_string(config.max_position_embeddings));
  config.max_position_embeddings = window;
}

void refuse_unsupported(const Object& object) {
  const std::string activation = object.text_or("hidden_act", "silu");
  if (activation != "silu") {
    object.fail("hidden_act", "is " + shown(activation) + "; only silu is supported");
  }
  if (object.positive_or("partial_rotary_factor", 1.0) != 1.0) {
    object.fail("partial_rotary_factor", "is not 1; rotating a part of the head is not supported");
  }
  refuse_quantised(object);
}

}  // namespace

ModelConfig ModelConfig::from_json(std::string_view text, std::string_view name) {
  const Json json = parse_json_object(text, name);
  ModelConfig config;
  config.source = name;
  const Object object(json, config.source);
  config.family = &find_family(object);
  refuse_unsupported(object);
  read_sizes(object, config);
  config.rms_norm_eps = static_cast<float>(object.positive_or("rms_norm_eps", kDefaultRmsNormEps));
  if (!(config.rms_norm_eps > 0) || !(config.rms_norm_eps < 1))
    object.fail("rms_norm_eps", "is not between 0 and 1");
  config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  config.tie_word_embeddings = object.boolean_or("tie_word_embeddings", false);
  config.qkv_bias = bias(config.family->qkv_bias, object, "attention_bias");
  config.output_bias = bias(config.family->output_bias, object, "attention_bias");
  config.mlp_bias = bias(config.family->mlp_bias, object, "mlp_bias");
  config.qk_norm = config.family->qk_norm;
  config.rope = find_rope(object, config.source);
  config.dtype = find_dtype(object);
  apply_window(object, config);
  read_token_ids(object, config);
  return config;
}

void ModelConfig::merge_generation_config(std::string_view text, std::string_view name) {
  const Json json = parse_json_object(text, name);
  read_token_ids(Object(json, std::string(name)), *this);
}

ModelConfig ModelConfig::from_folder(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    throw ModelError(folder.string() +
                     ": no such folder; a model is a Hugging Face folder with config.json");
  }
  const std::filesystem::path path = folder / "config.json";
  ModelConfig config = from_json(read_text_file(path, kMaxConfigBytes), path.string());
  const std::filesystem::path generation = folder / "generation_config.json";
  if (std::filesystem::exists(generation, ignored)) {
    config.merge_generation_config(read_text_file(generation, kMaxConfigBytes),
                                   generation.string());
  }
  return config;
}

}  // namespace tandem
