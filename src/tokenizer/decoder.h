#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/json_node.h"
#include "tokenizer/regex.h"

namespace tandem {

/// Steps that turn tokens into text. Each sees a list of tokens and makes a new one; at the end all
/// are joined.
namespace decoder_step {

struct Replace {  ///< in every token by itself
  Pattern pattern;
  std::string content;
};
struct ByteLevel {};  ///< GPT-2's stand-ins to bytes; joins all tokens; invalid bytes become U+FFFD
struct ByteFallback {
};               ///< runs of <0xNN> to characters; a run that is not UTF-8 to one U+FFFD per byte
struct Fuse {};  ///< joins all tokens
struct Strip {   ///< from every token, up to so many of a character
  char32_t content;
  size_t start;
  size_t stop;
};
struct Metaspace {  ///< the replacement to spaces
  char32_t replacement;
  bool drop_in_first;  ///< in the first token it vanishes
};
struct Spaces {};  ///< a space between tokens: what a tokenizer without a decoder does

}  // namespace decoder_step

using DecoderStep =
    std::variant<decoder_step::Replace, decoder_step::ByteLevel, decoder_step::ByteFallback,
                 decoder_step::Fuse, decoder_step::Strip, decoder_step::Metaspace,
                 decoder_step::Spaces>;

/// tokenizer.json's "decoder". Immutable; usable from several threads at once.
class Decoder {
 public:
  /// Known: Sequence, Replace, ByteLevel, ByteFallback, Fuse, Strip, Metaspace; null joins tokens
  /// with spaces.
  /// @throws ModelError
  static Decoder parse(const JsonNode& node);

  /// The bytes that a token stands for when it is not the first or last one.
  std::string token_bytes(std::string_view token) const;

  const std::vector<DecoderStep>& steps() const { return steps_; }

 private:
  std::vector<DecoderStep> steps_;
};

/// The byte of a token "<0xNN>"; nothing for other tokens.
std::optional<uint8_t> byte_fallback_value(std::string_view token);

}  // namespace tandem
