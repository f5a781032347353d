#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/pre_tokenizer.h"

namespace tandem {

/// What a tokenizer consists of; shared by its copies and its stream decoders, never changed.
struct TokenizerParts {
  std::unique_ptr<const Normalizer> normalizer;
  std::unique_ptr<const PreTokenizer> pre_tokenizer;
  Bpe model;
  AddedTokens added;
  PostProcessor post_processor;
  Decoder decoder;

  /// A token as the vocabulary writes it; nothing when the id is unused.
  std::optional<std::string_view> token(int32_t id) const;
  bool is_special(int32_t id) const;
};

}  // namespace tandem
