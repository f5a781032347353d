#include "tokenizer/vocabulary.h"

#include <nlohmann/json.hpp>

namespace tandem {

Vocabulary Vocabulary::parse(const JsonNode& node) {
  const nlohmann::json& object = node.json();
  if (!object.is_object()) node.fail("expected an object of token ids");
  Vocabulary vocabulary;
  size_t bytes = 0;
  int32_t largest = -1;
  for (const auto& [token, value] : object.items()) {
    // A place for the message costs more than reading the id: it is made only where something is
    // wrong.
    const bool plain = value.is_number_unsigned() && value.template get<uint64_t>() <= kMaxTokenId;
    largest = std::max(largest, plain ? value.template get<int32_t>() : node.at(token).token_id());
    bytes += token.size();
  }
  if (bytes >= kUnused) node.fail("holds more than 4 GiB of text");
  vocabulary.bytes_.reserve(bytes);
  vocabulary.spans_.resize(static_cast<size_t>(largest + 1));
  vocabulary.ids_.reserve(object.size());
  for (const auto& [token, value] : object.items()) {
    const auto id = value.template get<int32_t>();
    Span& span = vocabulary.spans_[static_cast<size_t>(id)];
    if (span.offset != kUnused) {
      node.fail("id " + std::to_string(id) + " is given to both " + quote(vocabulary.view(span)) +
                " and " + quote(token));
    }
    span = {static_cast<uint32_t>(vocabulary.bytes_.size()), static_cast<uint32_t>(token.size())};
    vocabulary.bytes_.insert(vocabulary.bytes_.end(), token.begin(), token.end());
    vocabulary.ids_.emplace(vocabulary.view(span), id);
  }
  return vocabulary;
}

std::optional<int32_t> Vocabulary::id(std::string_view token) const {
  const auto entry = ids_.find(token);
  if (entry == ids_.end()) return std::nullopt;
  return entry->second;
}

std::optional<std::string_view> Vocabulary::token(int32_t id) const {
  if (id < 0 || id >= size()) return std::nullopt;
  const Span& span = spans_[static_cast<size_t>(id)];
  if (span.offset == kUnused) return std::nullopt;
  return view(span);
}

}  // namespace tandem
