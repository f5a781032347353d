#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/flat_table.h"
#include "tokenizer/json_node.h"
#include "tokenizer/vocabulary.h"

namespace tandem {

/// Byte-pair encoding (Sennrich et al. 2016): a word is cut into characters, and neighbours are
/// merged, the pair that the table lists first, first; among equal pairs the leftmost. O(n log n)
/// in the length of the word. Immutable; usable from several threads at once.
class Bpe {
 public:
  /// Reads tokenizer.json's "model". @throws ModelError
  static Bpe parse(const JsonNode& node);

  const Vocabulary& vocabulary() const { return vocabulary_; }

  /// Work space of `encode`, to be reused from word to word by one thread.
  struct Scratch {
    struct Symbol {
      int32_t id;
      int32_t previous;  ///< index, -1 at the beginning
      int32_t next;      ///< index, -1 at the end
      bool merged_away;
    };
    struct Candidate {
      uint32_t rank;
      int32_t left;  ///< index of the left symbol
      int32_t result;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> queue;  ///< a heap, best candidate on top
  };

  /// Appends the ids of one word (valid UTF-8) to `ids`. A character that the vocabulary lacks
  /// becomes its bytes' tokens (byte_fallback), else the unknown token, else nothing.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t result;
  };

  void read_merges(const JsonNode& node);
  bool append_bytes(std::string_view symbol, std::vector<Scratch::Symbol>& symbols) const;
  void cut(std::string_view word, std::vector<Scratch::Symbol>& symbols) const;
  void push_candidate(Scratch& scratch, int32_t left) const;
  void merge(Scratch& scratch) const;

  Vocabulary vocabulary_;
  FlatTable<Merge> merges_;        ///< by pair of ids
  FlatTable<int32_t> characters_;  ///< ids of the tokens of one code point
  std::string continuing_subword_prefix_;
  std::string end_of_word_suffix_;
  std::optional<int32_t> unknown_id_;
  std::optional<std::array<int32_t, 256>>
      byte_ids_;  ///< with byte_fallback; -1 where a byte has no token
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

}  // namespace tandem
