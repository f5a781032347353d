#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/json_node.h"
#include "tokenizer/normalizer.h"

namespace tandem {

/// A text and its division into the words that the model sees one by one. Pieces are in order, not
/// empty, and may leave gaps (what was removed).
struct PieceList {
  struct Piece {
    size_t begin = 0;
    size_t end = 0;
    bool at_start = false;  ///< stands where the whole text begins
  };
  explicit PieceList(NormalizedText whole) : text(std::move(whole.text)) {
    if (!text.empty()) pieces.push_back({0, text.size(), whole.at_start});
  }
  std::string_view view(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }

  std::string text;
  std::vector<Piece> pieces;
};

/// Divides pieces further and may rewrite them. Immutable; usable from several threads at once.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void split(PieceList& list) const = 0;
};

/// Reads tokenizer.json's "pre_tokenizer"; null gives one that leaves the text whole.
/// Known: Sequence, Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit.
/// @throws ModelError
std::unique_ptr<const PreTokenizer> parse_pre_tokenizer(const JsonNode& node);

/// Metaspace's fields, which its pre-tokenizer and its decoder share.
struct MetaspaceOptions {
  enum class Prepend { kAlways, kFirst, kNever };
  char32_t replacement;
  Prepend prepend;
  bool split;
  /// Also reads the older form, with add_prefix_space in place of prepend_scheme. @throws
  /// ModelError
  static MetaspaceOptions parse(const JsonNode& node);
};

}  // namespace tandem
