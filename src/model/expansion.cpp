#include "model/expansion.h"

#include <string>

#include "core/mapped_file.h"
#include "model/json_text.h"
#include "tandem/error.h"

namespace tandem {
namespace {

constexpr ModelShape kShapes[] = {
    {"1B", 16, 2048, 32, 8, 64, 8192, 128256, /*tie_word_embeddings=*/true},
    {"8B", 32, 4096, 32, 8, 128, 14336, 128256, false},
    {"70B", 80, 8192, 64, 8, 128, 28672, 128256, false},
};

void check_shape(const ModelConfig& small, const ModelShape& shape) {
  const auto refuse = [&](const std::string& why) {
    throw ModelError(small.source + ": cannot be expanded to " + std::string(shape.name) + ": " +
                     why);
  };
  const auto fits = [&](const char* key, int size, int limit) {
    if (size <= limit) return;
    refuse(std::string(key) + " " + std::to_string(size) + " exceeds " + std::to_string(limit));
  };
  fits("num_hidden_layers", small.num_layers, shape.num_layers);
  fits("hidden_size", small.hidden_size, shape.hidden_size);
  fits("num_key_value_heads", small.num_kv_heads, shape.num_kv_heads);
  fits("query heads of a key head", small.num_heads / small.num_kv_heads,
       shape.num_heads / shape.num_kv_heads);
  fits("intermediate_size", small.intermediate_size, shape.intermediate_size);
  fits("vocab_size", small.vocab_size, shape.vocab_size);
  if (shape.head_dim % small.head_dim != 0) {
    refuse("head_dim " + std::to_string(small.head_dim) + " does not divide " +
           std::to_string(shape.head_dim));
  }
  // They would need an eps of their own.
  if (small.qk_norm) refuse("norms over the heads of q and k do not scale");
}

}  // namespace

std::span<const ModelShape> model_shapes() { return kShapes; }

ModelConfig expanded_config(const ModelConfig& small, const ModelShape& shape) {
  check_shape(small, shape);
  ModelConfig large = small;
  large.source = small.source + " expanded to " + std::string(shape.name);
  large.vocab_size = shape.vocab_size;
  large.hidden_size = shape.hidden_size;
  large.intermediate_size = shape.intermediate_size;
  large.num_layers = shape.num_layers;
  large.num_heads = shape.num_heads;
  large.num_kv_heads = shape.num_kv_heads;
  large.head_dim = shape.head_dim;
  large.tie_word_embeddings = shape.tie_word_embeddings && small.tie_word_embeddings;
  large.rms_norm_eps = small.rms_norm_eps * static_cast<float>(small.hidden_size) /
                       static_cast<float>(shape.hidden_size);
  return large;
}

int32_t never_used_token(const std::filesystem::path& folder) {
  const std::string source = (folder / "tokenizer.json").string();
  const nlohmann::json tokenizer = parse_json_object(read_text_file(source), source);
  const auto model = tokenizer.find("model");
  if (model != tokenizer.end() && model->is_object()) {
    const auto vocab = model->find("vocab");
    // SentencePiece writes bytes so; byte-level vocabularies write this one as U+00FF.
    for (const char* name : {"<0xFF>", "\xc3\xbf"}) {
      if (vocab == model->end() || !vocab->is_object()) break;
      const auto id = vocab->find(name);
      if (id != vocab->end() && id->is_number_integer()) return id->get<int32_t>();
    }
  }
  throw ModelError(source +
                   ": has no token for the byte 0xFF, whose row an expanded model's extra "
                   "vocabulary repeats; expand a model with a byte-level vocabulary");
}

}  // namespace tandem
