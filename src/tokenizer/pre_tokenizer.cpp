#include "tokenizer/pre_tokenizer.h"

#include <array>
#include <optional>

#include "tokenizer/byte_level.h"
#include "tokenizer/regex.h"
#include "tokenizer/utf8.h"

namespace tandem {
namespace {

constexpr std::array<std::string_view, 8> kKnown{"Sequence",   "Split",          "ByteLevel",
                                                 "Metaspace",  "Digits",         "Punctuation",
                                                 "Whitespace", "WhitespaceSplit"};

/// What becomes of the text that a Split matches (the delimiter).
enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior parse_behavior(const JsonNode& node) {
  const std::string name = node.string();
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  node.fail("unknown behavior " + quote(name) +
            " (known: Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous)");
}

/// A part of a piece; the parts of a piece cover it in order.
struct Part {
  TextRange range;
  bool is_delimiter = false;
};

std::vector<Part> parts_between(const std::vector<TextRange>& matches, size_t size, bool invert) {
  std::vector<Part> parts;
  parts.reserve(2 * matches.size() + 1);
  size_t position = 0;
  for (const TextRange& match : matches) {
    if (position != match.begin) parts.push_back({{position, match.begin}, invert});
    parts.push_back({match, !invert});
    position = match.end;
  }
  if (position != size) parts.push_back({{position, size}, invert});
  return parts;
}

/// The ranges that remain of the parts, in order.
std::vector<TextRange> arrange(const std::vector<Part>& parts, Behavior behavior) {
  std::vector<TextRange> ranges;
  ranges.reserve(parts.size());
  bool previous = false;  // was the part before a delimiter?
  if (behavior == Behavior::kMergedWithNext) {
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      if (part->is_delimiter && !previous && !ranges.empty()) {
        ranges.back().begin = part->range.begin;
      } else {
        ranges.push_back(part->range);
      }
      previous = part->is_delimiter;
    }
    return {ranges.rbegin(), ranges.rend()};
  }
  for (const Part& part : parts) {
    const bool joins = behavior == Behavior::kContiguous           ? part.is_delimiter == previous
                       : behavior == Behavior::kMergedWithPrevious ? part.is_delimiter && !previous
                                                                   : false;
    if (joins && !ranges.empty()) {
      ranges.back().end = part.range.end;
    } else if (!(behavior == Behavior::kRemoved && part.is_delimiter)) {
      ranges.push_back(part.range);
    }
    previous = part.is_delimiter;
  }
  return ranges;
}

/// Splits every piece; `find(view, matches)` sets the delimiters within a piece.
template <typename Find>
void split_pieces(PieceList& list, Behavior behavior, bool invert, const Find& find) {
  std::vector<PieceList::Piece> pieces;
  pieces.reserve(list.pieces.size());
  std::vector<TextRange> matches;
  const auto add = [&](const PieceList::Piece& piece, const TextRange& range) {
    if (range.begin == range.end) return;
    pieces.push_back(
        {piece.begin + range.begin, piece.begin + range.end, piece.at_start && range.begin == 0});
  };
  for (const PieceList::Piece& piece : list.pieces) {
    find(list.view(piece), matches);
    const std::vector<Part> parts = parts_between(matches, piece.end - piece.begin, invert);
    for (const TextRange& range : arrange(parts, behavior)) add(piece, range);
  }
  list.pieces = std::move(pieces);
}

/// Splits at every single character that the predicate accepts.
template <typename Predicate>
void split_at_characters(PieceList& list, Behavior behavior, const Predicate& is_delimiter) {
  split_pieces(list, behavior, false, [&](std::string_view text, std::vector<TextRange>& matches) {
    matches.clear();
    for (size_t i = 0; i < text.size();) {
      const size_t begin = i;
      if (is_delimiter(utf8::decode(text, i))) matches.push_back({begin, i});
    }
  });
}

/// Rewrites every piece: `append(result, piece, view)`.
template <typename Append>
void rewrite_pieces(PieceList& list, const Append& append) {
  std::string text;
  text.reserve(list.text.size() + list.text.size() / 2);
  std::vector<PieceList::Piece> pieces;
  pieces.reserve(list.pieces.size());
  for (const PieceList::Piece& piece : list.pieces) {
    const size_t begin = text.size();
    append(text, piece, list.view(piece));
    if (text.size() != begin) pieces.push_back({begin, text.size(), piece.at_start});
  }
  list.text = std::move(text);
  list.pieces = std::move(pieces);
}

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<const PreTokenizer>> parts)
      : parts_(std::move(parts)) {}
  void split(PieceList& list) const override {
    for (const auto& part : parts_) part->split(list);
  }

 private:
  std::vector<std::unique_ptr<const PreTokenizer>> parts_;
};

class Split : public PreTokenizer {
 public:
  Split(Pattern pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void split(PieceList& list) const override {
    split_pieces(list, behavior_, invert_,
                 [&](std::string_view text, std::vector<TextRange>& matches) {
                   pattern_.find_all(text, matches);
                 });
  }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex) : add_prefix_space_(add_prefix_space) {
    if (use_regex) words_.emplace(kGpt2Pattern);
  }
  void split(PieceList& list) const override {
    if (add_prefix_space_) {
      rewrite_pieces(list, [](std::string& text, const PieceList::Piece&, std::string_view piece) {
        if (!piece.starts_with(' ')) text += ' ';
        text += piece;
      });
    }
    if (words_) {
      split_pieces(list, Behavior::kIsolated, false,
                   [&](std::string_view text, std::vector<TextRange>& matches) {
                     words_->find_all(text, matches);
                   });
    }
    rewrite_pieces(list, [](std::string& text, const PieceList::Piece&, std::string_view piece) {
      byte_level::append_characters(text, piece);
    });
  }

 private:
  /// The word pattern of GPT-2, which use_regex refers to.
  static constexpr std::string_view kGpt2Pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

  bool add_prefix_space_;
  std::optional<Regex> words_;
};

class Metaspace : public PreTokenizer {
 public:
  explicit Metaspace(const MetaspaceOptions& options) : options_(options) {
    utf8::append(replacement_, options.replacement);
  }
  void split(PieceList& list) const override {
    using Prepend = MetaspaceOptions::Prepend;
    rewrite_pieces(list,
                   [&](std::string& text, const PieceList::Piece& piece, std::string_view view) {
                     const bool prepend = options_.prepend == Prepend::kAlways ||
                                          (options_.prepend == Prepend::kFirst && piece.at_start);
                     if (prepend && !view.starts_with(' ') && !view.starts_with(replacement_))
                       text += replacement_;
                     for (const char c : view) {
                       if (c == ' ') {
                         text += replacement_;
                       } else {
                         text += c;
                       }
                     }
                   });
    if (options_.split) {
      split_at_characters(list, Behavior::kMergedWithNext,
                          [&](char32_t c) { return c == options_.replacement; });
    }
  }

 private:
  MetaspaceOptions options_;
  std::string replacement_;
};

class Digits : public PreTokenizer {
 public:
  explicit Digits(bool individual) : individual_(individual) {}
  void split(PieceList& list) const override {
    split_at_characters(list, individual_ ? Behavior::kIsolated : Behavior::kContiguous,
                        utf8::is_numeric);
  }

 private:
  bool individual_;
};

class Punctuation : public PreTokenizer {
 public:
  explicit Punctuation(Behavior behavior) : behavior_(behavior) {}
  void split(PieceList& list) const override {
    split_at_characters(list, behavior_, utf8::is_punctuation);
  }

 private:
  Behavior behavior_;
};

class WhitespaceSplit : public PreTokenizer {
 public:
  void split(PieceList& list) const override {
    split_at_characters(list, Behavior::kRemoved, utf8::is_white_space);
  }
};

std::unique_ptr<const PreTokenizer> parse(const JsonNode& node, int depth) {
  const std::string type = node.type();
  if (type == "Sequence") {
    if (depth >= kMaxNesting) node.fail("sequences nest too deeply");
    std::vector<std::unique_ptr<const PreTokenizer>> parts;
    for (const JsonNode& part : node.at("pretokenizers").elements())
      parts.push_back(parse(part, depth + 1));
    return std::make_unique<Sequence>(std::move(parts));
  }
  if (type == "Split") {
    return std::make_unique<Split>(Pattern::parse(node.at("pattern")),
                                   parse_behavior(node.at("behavior")),
                                   node.boolean("invert", false));
  }
  if (type == "ByteLevel") {
    return std::make_unique<ByteLevel>(node.boolean("add_prefix_space", true),
                                       node.boolean("use_regex", true));
  }
  if (type == "Metaspace") return std::make_unique<Metaspace>(MetaspaceOptions::parse(node));
  if (type == "Digits") return std::make_unique<Digits>(node.at("individual_digits").boolean());
  if (type == "Punctuation") {
    return std::make_unique<Punctuation>(node.has("behavior") ? parse_behavior(node.at("behavior"))
                                                              : Behavior::kIsolated);
  }
  if (type == "Whitespace") {
    // Words and runs of anything else but space; the joiners (ZWNJ, ZWJ) count as parts of words.
    constexpr std::string_view kWords = R"([\w\u200c\u200d]+|[^\w\s\u200c\u200d]+)";
    return std::make_unique<Split>(Pattern(Regex(kWords)), Behavior::kRemoved, true);
  }
  if (type == "WhitespaceSplit") return std::make_unique<WhitespaceSplit>();
  node.fail_unknown_type("pre-tokenizer", kKnown);
}

}  // namespace

MetaspaceOptions MetaspaceOptions::parse(const JsonNode& node) {
  MetaspaceOptions options{node.at("replacement").character(), Prepend::kAlways,
                           node.boolean("split", true)};
  const bool add_prefix_space = node.boolean("add_prefix_space", true);
  if (!node.has("prepend_scheme")) {
    options.prepend = add_prefix_space ? Prepend::kAlways : Prepend::kNever;
    return options;
  }
  const JsonNode scheme = node.at("prepend_scheme");
  const std::string name = scheme.string();
  if (name == "always") {
    options.prepend = Prepend::kAlways;
  } else if (name == "first") {
    options.prepend = Prepend::kFirst;
  } else if (name == "never") {
    options.prepend = Prepend::kNever;
  } else {
    scheme.fail("unknown prepend scheme " + quote(name) + " (known: always, first, never)");
  }
  if (!add_prefix_space && options.prepend != Prepend::kNever) {
    scheme.fail(quote(name) + " contradicts add_prefix_space false");
  }
  return options;
}

std::unique_ptr<const PreTokenizer> parse_pre_tokenizer(const JsonNode& node) {
  if (node.is_null())
    return std::make_unique<Sequence>(std::vector<std::unique_ptr<const PreTokenizer>>());
  return parse(node, 0);
}

}  // namespace tandem
