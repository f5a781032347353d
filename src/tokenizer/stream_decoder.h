#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"

namespace tandem {

class DecoderPipeline;

/// Turns token ids into text while they arrive. The pieces that `push` returns, followed by what
/// `flush` returns, are exactly `Tokenizer::decode` of all the ids. A piece is final and never ends
/// inside a UTF-8 character: bytes that may still become one, and text whose reading depends on the
/// next token, are held back.
///
/// Move-only; keeps the tokenizer's tables alive by itself. One thread at a time.
class StreamDecoder {
 public:
  /// @param skip_special leaves special tokens out of the text
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&& other) noexcept;
  StreamDecoder& operator=(StreamDecoder&& other) noexcept;

  /// Takes the next token; returns the text that became final, often empty. Ids that stand for
  /// nothing give none.
  std::string push(int32_t id);

  /// Ends the text: returns what was held back. Afterwards the decoder stands at the start of a new
  /// text.
  std::string flush();

 private:
  std::shared_ptr<const TokenizerParts> parts_;
  bool skip_special_;
  std::unique_ptr<DecoderPipeline> pipeline_;
};

}  // namespace tandem
