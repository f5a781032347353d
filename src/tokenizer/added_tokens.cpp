#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace tandem {
namespace {

AddedToken parse_token(const JsonNode& node) {
  AddedToken token;
  token.id = node.at("id").token_id();
  token.content = node.at("content").string();
  token.special = node.boolean("special", false);
  token.normalized = node.boolean("normalized", !token.special);
  token.single_word = node.boolean("single_word", false);
  token.left_strip = node.boolean("lstrip", false);
  token.right_strip = node.boolean("rstrip", false);
  return token;
}

size_t skip_space_backwards(std::string_view text, size_t end) {
  for (size_t begin = end; begin > 0; end = begin) {
    if (!utf8::is_white_space(utf8::decode_backwards(text, begin))) break;
  }
  return end;
}

size_t skip_space(std::string_view text, size_t begin) {
  for (size_t end = begin; end < text.size(); begin = end) {
    if (!utf8::is_white_space(utf8::decode(text, end))) break;
  }
  return begin;
}

}  // namespace

void AddedTokens::Trie::insert(std::string_view text, uint32_t token) {
  if (text.empty()) return;
  uint64_t node = 0;
  for (const char c : text) {
    const uint64_t key = (node << 8) | static_cast<uint8_t>(c);
    const uint32_t* child = children_.find(key);
    if (child == nullptr) {
      node = tokens_.size();
      children_.set(key, static_cast<uint32_t>(node));
      tokens_.push_back(kNone);
    } else {
      node = *child;
    }
  }
  if (tokens_[node] == kNone) tokens_[node] = token;
}

std::optional<std::pair<uint32_t, size_t>> AddedTokens::Trie::longest(std::string_view text,
                                                                      size_t position) const {
  std::optional<std::pair<uint32_t, size_t>> best;
  uint64_t node = 0;
  while (position < text.size()) {
    const uint32_t* child = children_.find((node << 8) | static_cast<uint8_t>(text[position++]));
    if (child == nullptr) break;
    node = *child;
    if (tokens_[node] != kNone) best = {tokens_[node], position};
  }
  return best;
}

AddedTokens AddedTokens::parse(const JsonNode& node, const Vocabulary& vocabulary,
                               const Normalizer& normalizer) {
  AddedTokens added;
  if (node.is_null()) return added;
  for (const JsonNode& element : node.elements()) {
    AddedToken token = parse_token(element);
    if (token.content.empty()) continue;
    const std::optional<int32_t> known_id = vocabulary.id(token.content);
    if (known_id && *known_id != token.id) {
      element.fail(quote(token.content) + " has id " + std::to_string(token.id) +
                   ", the vocabulary gives it " + std::to_string(*known_id));
    }
    if (const auto other = vocabulary.token(token.id); other && *other != token.content) {
      element.fail("id " + std::to_string(token.id) + " is given to " + quote(token.content) +
                   ", the vocabulary gives it to " + quote(*other));
    }
    const size_t index = added.tokens_.size();
    if (!added.by_id_.emplace(token.id, index).second) {
      element.fail("id " + std::to_string(token.id) + " is given to more than one added token");
    }
    if (!added.by_content_.emplace(token.content, index).second) {
      element.fail(quote(token.content) + " is added more than once");
    }
    if (token.single_word && !added.word_character_) {
      added.word_character_.emplace(R"([\w\u200c\u200d])");
    }
    added.tokens_.push_back(std::move(token));
  }
  // Normalisation can make two contents equal: then a special token wins.
  for (const bool special : {true, false}) {
    for (size_t i = 0; i < added.tokens_.size(); ++i) {
      const AddedToken& token = added.tokens_[i];
      if (token.special != special) continue;
      NormalizedText content{token.content, true};
      if (token.normalized) normalizer.apply(content);
      (token.normalized ? added.normalized_ : added.raw_)
          .insert(content.text, static_cast<uint32_t>(i));
    }
  }
  return added;
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto entry = by_id_.find(id);
  return entry == by_id_.end() ? nullptr : &tokens_[entry->second];
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto entry = by_content_.find(std::string(content));
  return entry == by_content_.end() ? nullptr : &tokens_[entry->second];
}

int32_t AddedTokens::size() const {
  int32_t size = 0;
  for (const AddedToken& token : tokens_) size = std::max(size, token.id + 1);
  return size;
}

bool AddedTokens::is_single_word(std::string_view text, const TextRange& range) const {
  std::vector<TextRange> matches;
  const auto is_word = [&](size_t begin, size_t end) {
    word_character_->find_all(text.substr(begin, end - begin), matches);
    return !matches.empty();
  };
  if (range.begin > 0) {
    size_t before = range.begin;
    utf8::decode_backwards(text, before);
    if (is_word(before, range.begin)) return false;
  }
  if (range.end < text.size()) {
    size_t after = range.end;
    utf8::decode(text, after);
    if (is_word(range.end, after)) return false;
  }
  return true;
}

std::vector<Segment> AddedTokens::divide(std::string_view text, bool normalized,
                                         bool special) const {
  const Trie& trie = normalized ? normalized_ : raw_;
  std::vector<Segment> segments;
  size_t done = 0;
  for (size_t position = 0; !trie.empty() && position < text.size();) {
    const auto found = trie.longest(text, position);
    if (!found) {
      ++position;
      continue;
    }
    const AddedToken& token = tokens_[found->first];
    TextRange range{position, found->second};
    position = range.end;
    if (!special && token.special) continue;
    if (token.single_word && !is_single_word(text, range)) continue;
    if (token.left_strip) range.begin = std::max(skip_space_backwards(text, range.begin), done);
    if (token.right_strip) range.end = skip_space(text, range.end);
    if (range.begin >= range.end) continue;  // the token before took all of it as white space
    if (done < range.begin) segments.push_back({{done, range.begin}, std::nullopt});
    segments.push_back({range, token.id});
    done = range.end;
  }
  if (done != text.size()) segments.push_back({{done, text.size()}, std::nullopt});
  return segments;
}

}  // namespace tandem
