#include "tokenizer/bpe.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tokenizer/utf8.h"

namespace tandem {
namespace {

constexpr std::array<std::string_view, 1> kKnown{"BPE"};

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

/// The two sides of a merge: ["a", "b"], or in older files "a b".
std::pair<std::string_view, std::string_view> sides(const nlohmann::json& merge,
                                                    const JsonNode& merges, size_t index) {
  const auto fail = [&] {
    merges.elements()[index].fail("expected a merge, [\"a\", \"b\"] or \"a b\"");
  };
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
  }
  if (!merge.is_string()) fail();
  const std::string_view text = merge.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
    fail();
  return {text.substr(0, space), text.substr(space + 1)};
}

}  // namespace

Bpe Bpe::parse(const JsonNode& node) {
  // Files from before the model had a type hold BPE when they hold merges.
  if (node.has("type") ? node.type() != "BPE" : !node.has("merges"))
    node.fail_unknown_type("model", kKnown);
  Bpe bpe;
  bpe.vocabulary_ = Vocabulary::parse(node.at("vocab"));
  if (node.has("dropout")) {
    const JsonNode dropout = node.at("dropout");
    if (!dropout.json().is_number()) dropout.fail("expected a number");
    if (dropout.json().get<double>() != 0.0)
      dropout.fail("dropout is for training; set it to null");
  }
  bpe.continuing_subword_prefix_ = node.optional_string("continuing_subword_prefix").value_or("");
  bpe.end_of_word_suffix_ = node.optional_string("end_of_word_suffix").value_or("");
  bpe.fuse_unknown_ = node.boolean("fuse_unk", false);
  bpe.ignore_merges_ = node.boolean("ignore_merges", false);
  if (const auto unknown = node.optional_string("unk_token")) {
    bpe.unknown_id_ = bpe.vocabulary_.id(*unknown);
    if (!bpe.unknown_id_) node.at("unk_token").fail("the vocabulary lacks " + quote(*unknown));
  }
  if (node.boolean("byte_fallback", false)) {
    bpe.byte_ids_.emplace();
    for (int byte = 0; byte < 256; ++byte) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", byte);
      (*bpe.byte_ids_)[static_cast<size_t>(byte)] = bpe.vocabulary_.id(name).value_or(-1);
    }
  }
  for (int32_t id = 0; id < bpe.vocabulary_.size(); ++id) {
    const std::string_view token = bpe.vocabulary_.token(id).value_or("");
    size_t end = 0;
    if (token.empty()) continue;
    const char32_t character = utf8::decode(token, end);
    if (end == token.size()) bpe.characters_.set(character, id);
  }
  bpe.read_merges(node.at("merges"));
  return bpe;
}

void Bpe::read_merges(const JsonNode& node) {
  const nlohmann::json& merges = node.json();
  if (!merges.is_array()) node.fail("expected an array");
  merges_ = FlatTable<Merge>(merges.size());
  std::string joined;
  uint32_t rank = 0;
  for (size_t i = 0; i < merges.size(); ++i) {
    if (merges[i].is_string() && merges[i].get_ref<const std::string&>().starts_with("#version"))
      continue;
    const auto [left, right] = sides(merges[i], node, i);
    const auto id = [&](std::string_view token) {
      const std::optional<int32_t> found = vocabulary_.id(token);
      if (!found) node.elements()[i].fail("the vocabulary lacks " + quote(token));
      return *found;
    };
    if (right.size() < continuing_subword_prefix_.size()) {
      node.elements()[i].fail(quote(right) + " lacks the continuing_subword_prefix");
    }
    joined.assign(left).append(right.substr(continuing_subword_prefix_.size()));
    const int32_t left_id = id(left);
    const int32_t right_id = id(right);
    merges_.set(pair_key(left_id, right_id), {rank++, id(joined)});
  }
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    if (const auto whole = vocabulary_.id(word)) {
      ids.push_back(*whole);
      return;
    }
  }
  cut(word, scratch.symbols);
  merge(scratch);
  for (const Scratch::Symbol& symbol : scratch.symbols) {
    if (!symbol.merged_away) ids.push_back(symbol.id);
  }
}

/// All bytes become tokens or none does.
bool Bpe::append_bytes(std::string_view symbol, std::vector<Scratch::Symbol>& symbols) const {
  if (!byte_ids_) return false;
  const auto id = [&](char byte) { return (*byte_ids_)[static_cast<uint8_t>(byte)]; };
  if (std::any_of(symbol.begin(), symbol.end(), [&](char byte) { return id(byte) < 0; }))
    return false;
  for (const char byte : symbol) symbols.push_back({id(byte), 0, 0, false});
  return true;
}

void Bpe::cut(std::string_view word, std::vector<Scratch::Symbol>& symbols) const {
  symbols.clear();
  // An unknown token waits for the next known one, so that fuse_unk can stretch it. Byte tokens do
  // not count as known: they overtake it, in Hugging Face's implementation and therefore here.
  bool unknown_waits = false;
  const auto release_unknown = [&] {
    if (unknown_waits) symbols.push_back({*unknown_id_, 0, 0, false});
    unknown_waits = false;
  };
  std::string affixed;
  for (size_t end = 0; end < word.size();) {
    const size_t begin = end;
    const char32_t code_point = utf8::decode(word, end);
    std::string_view symbol = word.substr(begin, end - begin);
    const bool prefixed = begin != 0 && !continuing_subword_prefix_.empty();
    const bool suffixed = end == word.size() && !end_of_word_suffix_.empty();
    std::optional<int32_t> id;
    if (prefixed || suffixed) {
      affixed.assign(prefixed ? continuing_subword_prefix_ : "").append(symbol);
      if (suffixed) affixed += end_of_word_suffix_;
      symbol = affixed;
      id = vocabulary_.id(symbol);
    } else if (const int32_t* plain = characters_.find(code_point)) {
      id = *plain;
    }
    if (id) {
      release_unknown();
      symbols.push_back({*id, 0, 0, false});
    } else if (!append_bytes(symbol, symbols) && unknown_id_) {
      if (!fuse_unknown_) release_unknown();
      unknown_waits = true;
    }
  }
  release_unknown();
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)].previous = i - 1;
    symbols[static_cast<size_t>(i)].next = i + 1 < count ? i + 1 : -1;
  }
}

namespace {

/// Heap order: the lowest rank on top, then the leftmost.
bool comes_later(const Bpe::Scratch::Candidate& a, const Bpe::Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

}  // namespace

void Bpe::push_candidate(Scratch& scratch, int32_t left) const {
  const Scratch::Symbol& symbol = scratch.symbols[static_cast<size_t>(left)];
  const Scratch::Symbol& right = scratch.symbols[static_cast<size_t>(symbol.next)];
  const Merge* merge = merges_.find(pair_key(symbol.id, right.id));
  if (merge == nullptr) return;
  scratch.queue.push_back({merge->rank, left, merge->result});
  std::push_heap(scratch.queue.begin(), scratch.queue.end(), comes_later);
}

void Bpe::merge(Scratch& scratch) const {
  auto& [symbols, queue] = scratch;
  queue.clear();
  for (const Scratch::Symbol& symbol : symbols) {
    if (symbol.next >= 0) push_candidate(scratch, symbol.next - 1);
  }
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), comes_later);
    const Scratch::Candidate best = queue.back();
    queue.pop_back();
    Scratch::Symbol& left = symbols[static_cast<size_t>(best.left)];
    if (left.merged_away || left.next < 0) continue;
    Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    // A candidate is out of date when one of its symbols has been merged meanwhile.
    const Merge* current = merges_.find(pair_key(left.id, right.id));
    if (current == nullptr || current->result != best.result) continue;
    left.id = best.result;
    left.next = right.next;
    right.merged_away = true;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = best.left;
      push_candidate(scratch, best.left);
    }
    if (left.previous >= 0) push_candidate(scratch, left.previous);
  }
}

}  // namespace tandem
