#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/flat_table.h"
#include "tokenizer/json_node.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/regex.h"
#include "tokenizer/vocabulary.h"

namespace tandem {

/// A token that is looked for in the text before the model sees it.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;      ///< left out of decoded text on demand, recognised on demand
  bool normalized = false;   ///< looked for in normalised text, else in the text as given
  bool single_word = false;  ///< not beside a letter, digit or other character of words
  bool left_strip = false;   ///< takes the white space before it along
  bool right_strip = false;  ///< and behind it
};

/// A stretch of text: an added token, or ordinary text between them.
struct Segment {
  TextRange range;
  std::optional<int32_t> token;
};

/// The added tokens of a tokenizer. Immutable; usable from several threads at once.
class AddedTokens {
 public:
  /// Reads the array "added_tokens" (null: none).
  /// @throws ModelError also when an id or content contradicts the model's vocabulary or another
  /// added token
  static AddedTokens parse(const JsonNode& node, const Vocabulary& vocabulary,
                           const Normalizer& normalizer);

  const AddedToken* find(int32_t id) const;
  const AddedToken* find(std::string_view content) const;
  /// The largest id + 1, 0 when there are none.
  int32_t size() const;

  /// Divides a text into added tokens and what lies between them: from left to right, the longest
  /// token first.
  /// @param normalized looks for the tokens that want normalised text, else for the others
  /// @param special false: the text of special tokens is ordinary text
  std::vector<Segment> divide(std::string_view text, bool normalized, bool special) const;

 private:
  /// Finds the longest of a set of texts that starts at a place.
  class Trie {
   public:
    /// The first of equal texts counts; empty ones never match.
    void insert(std::string_view text, uint32_t token);
    bool empty() const { return tokens_.size() == 1; }
    /// The index of the longest text that starts at `position`, with its end.
    std::optional<std::pair<uint32_t, size_t>> longest(std::string_view text,
                                                       size_t position) const;

   private:
    static constexpr uint32_t kNone = ~uint32_t{0};
    FlatTable<uint32_t> children_;         ///< (node << 8 | byte) → node
    std::vector<uint32_t> tokens_{kNone};  ///< by node: the token that ends there
  };

  bool is_single_word(std::string_view text, const TextRange& range) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string, size_t> by_content_;
  Trie raw_;
  Trie normalized_;
  std::optional<Regex> word_character_;  ///< set when a token wants single_word
};

}  // namespace tandem
