#pragma once

#include <memory>
#include <string>

#include "tokenizer/json_node.h"

namespace tandem {

/// A stretch of text between added tokens, on its way to the pre-tokenizer.
struct NormalizedText {
  std::string text;
  bool at_start = false;  ///< its first character stands where the whole text begins
};

/// Rewrites text before it is split. Immutable; usable from several threads at once.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// @param text valid UTF-8, and so it stays
  virtual void apply(NormalizedText& text) const = 0;
};

/// Reads tokenizer.json's "normalizer"; null gives one that does nothing.
/// Known: Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents.
/// @throws ModelError
std::unique_ptr<const Normalizer> parse_normalizer(const JsonNode& node);

}  // namespace tandem
