#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/json_node.h"

namespace tandem {

/// The two-way map between a model's tokens and their ids. Immutable after parsing; movable.
class Vocabulary {
 public:
  /// Reads an object of token → id. @throws ModelError for ids that are no integers, out of range
  /// or given twice
  static Vocabulary parse(const JsonNode& node);

  std::optional<int32_t> id(std::string_view token) const;
  /// The token of an id; nothing when the id is unused or out of range.
  std::optional<std::string_view> token(int32_t id) const;
  /// The largest id + 1.
  int32_t size() const { return static_cast<int32_t>(spans_.size()); }

 private:
  static constexpr uint32_t kUnused = ~uint32_t{0};
  struct Span {
    uint32_t offset = kUnused;
    uint32_t length = 0;
  };

  std::string_view view(const Span& span) const {
    return {bytes_.data() + span.offset, span.length};
  }

  std::vector<char> bytes_;  ///< all tokens, end to end; the keys of ids_ point into it
  std::vector<Span> spans_;  ///< by id
  std::unordered_map<std::string_view, int32_t> ids_;
};

}  // namespace tandem
