#include "tokenizer/regex_translation.h"

#include <cctype>
#include <optional>
#include <vector>

#include "tokenizer/regex_sets.h"
#include "tokenizer/utf8.h"

namespace tandem {
namespace {

using regex_sets::category_abbreviation;
using regex_sets::kBareWord;
using regex_sets::kDigit;
using regex_sets::kHexDigit;
using regex_sets::kSpace;
using regex_sets::kWord;
using regex_sets::posix_set_items;

constexpr int kMaxGroupDepth = 100;

/// One set of characters: items for a PCRE2 class, with the flag that turns it round.
struct CharacterSet {
  std::string items;
  bool negated = false;
  std::string as_regex() const { return (negated ? "[^" : "[") + items + "]"; }
};

/// One pass over the pattern. Every parse function consumes from `pattern_` at `position_`.
class Translator {
 public:
  Translator(std::string_view pattern, const std::function<bool(std::string_view)>& is_script)
      : pattern_(pattern), is_script_(is_script) {}

  std::string run() {
    while (!at_end()) element();
    close_flag_groups();
    return std::move(output_);
  }

 private:
  /// A group that is open at this point of the pattern.
  struct Group {
    size_t begin = 0;     ///< where it starts in the output
    int flag_groups = 0;  ///< groups opened by bare flags, `(?i)`, that end together with it
  };

  bool at_end() const { return position_ == pattern_.size(); }
  bool next_is(std::string_view text) const { return pattern_.substr(position_).starts_with(text); }
  bool take(std::string_view text) {
    if (!next_is(text)) return false;
    position_ += text.size();
    return true;
  }
  [[noreturn]] void fail(const std::string& message) const {
    throw RegexError("regex '" + std::string(pattern_) + "': " + message + " (at byte " +
                     std::to_string(position_) + ")");
  }

  void begin_atom() {
    atom_begin_ = output_.size();
    has_atom_ = true;
    quantified_ = false;
  }
  void end_alternative() {
    has_atom_ = false;
    quantified_ = false;
  }

  void element() {
    switch (pattern_[position_]) {
      case '\\':
        return escape();
      case '[':
        ++position_;
        begin_atom();
        output_ += character_class(0);
        return;
      case '(':
        return open_group();
      case ')':
        return close_group();
      case '|':
        ++position_;
        output_ += '|';
        return end_alternative();
      case '*':
      case '+':
      case '?':
        return quantifier(std::string(1, pattern_[position_++]), true, false);
      case '{':
        if (interval()) return;
        break;
      default:
        break;
    }
    begin_atom();
    const size_t begin = position_;
    utf8::decode(pattern_, position_);
    const std::string_view character = pattern_.substr(begin, position_ - begin);
    if (character == "{" || character == "}" || character == "]") output_ += '\\';
    output_ += character;
  }

  void open_group() {
    if (groups_.size() >= kMaxGroupDepth) fail("groups nest too deeply");
    if (next_is("(*")) fail("(*…) is not supported");
    if (take("(?#")) {
      const size_t end = pattern_.find(')', position_);
      if (end == std::string_view::npos) fail("comment without end");
      position_ = end + 1;
      return;
    }
    begin_atom();
    Group group{atom_begin_, 0};
    if (!take("(?")) {
      ++position_;
      output_ += '(';
    } else if (!group_prefix(group)) {
      return;
    }
    groups_.push_back(group);
    end_alternative();
  }

  /// What follows "(?". Returns false when it opened a group of its own kind.
  bool group_prefix(Group& group) {
    for (const std::string_view prefix : {"<=", "<!", ":", "=", "!", ">"}) {
      if (take(prefix)) {
        output_.append("(?").append(prefix);
        return true;
      }
    }
    if (next_is("<")) {
      const size_t end = pattern_.find('>', position_);
      if (end == std::string_view::npos) fail("group name without end");
      output_.append("(?").append(pattern_.substr(position_, end + 1 - position_));
      position_ = end + 1;
      return true;
    }
    std::string flags;
    while (!at_end() && (next_is("i") || next_is("m") || next_is("-"))) {
      const char flag = pattern_[position_++];
      flags += flag == 'm' ? 's' : flag;
    }
    if (flags.empty()) fail("this kind of group is not supported");
    if (take(":")) {
      output_.append("(?").append(flags).append(":");
      return true;
    }
    if (!take(")")) fail("these flags are not supported");
    // Bare flags hold until the enclosing group ends, alternatives included: a(?i)b|c is a(?i:b|c).
    output_.append("(?").append(flags).append(":");
    if (++open_flag_groups(group) > kMaxGroupDepth) fail("groups nest too deeply");
    end_alternative();
    return false;
  }

  int& open_flag_groups(Group&) {
    return groups_.empty() ? top_flag_groups_ : groups_.back().flag_groups;
  }

  void close_flag_groups() {
    int& count = groups_.empty() ? top_flag_groups_ : groups_.back().flag_groups;
    output_.append(static_cast<size_t>(count), ')');
    count = 0;
  }

  void close_group() {
    if (groups_.empty()) fail("unmatched )");
    ++position_;
    close_flag_groups();
    output_ += ')';
    atom_begin_ = groups_.back().begin;
    groups_.pop_back();
    has_atom_ = true;
    quantified_ = false;
  }

  /// {n}, {n,}, {n,m} or {,m} at the position. Returns false when the brace is a literal.
  bool interval() {
    size_t i = position_ + 1;
    const auto digits = [&] {
      const size_t begin = i;
      while (i < pattern_.size() && std::isdigit(static_cast<unsigned char>(pattern_[i]))) ++i;
      return std::string(pattern_.substr(begin, i - begin));
    };
    std::string low = digits();
    const bool fixed = i < pattern_.size() && pattern_[i] == '}';
    std::string high;
    if (!fixed) {
      if (i == pattern_.size() || pattern_[i] != ',') return false;
      ++i;
      high = digits();
      if (i == pattern_.size() || pattern_[i] != '}') return false;
    }
    if (low.empty() && high.empty()) return false;
    if (low.empty()) low = "0";
    position_ = i + 1;
    std::string text("{");
    text.append(low);
    if (!fixed) text.append(",").append(high);
    text.append("}");
    quantifier(text, false, fixed);
    return true;
  }

  /// Writes a quantifier for the last atom, with the lazy or possessive sign that follows it.
  /// Behind an interval + is a second quantifier, and so is ? behind {n}.
  void quantifier(const std::string& text, bool can_be_possessive, bool fixed) {
    if (!has_atom_) fail("quantifier without target");
    if (quantified_) {
      output_.insert(atom_begin_, "(?:");
      output_ += ')';
    }
    output_ += text;
    quantified_ = true;
    if (can_be_possessive && take("+")) {
      output_ += '+';
    } else if (!fixed && take("?")) {
      output_ += '?';
    }
  }

  void escape() {
    begin_atom();
    if (position_ + 1 == pattern_.size()) fail("backslash at the end");
    const char c = pattern_[position_ + 1];
    if (c == 'b' || c == 'B') {
      position_ += 2;
      const std::string word = "[" + std::string(kBareWord) + "]";
      const std::string boundary =
          "(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + ")";
      output_ += (c == 'b' ? "(?:" : "(?!") + boundary + ")";
      return;
    }
    if (std::string_view("AzZGRXK").find(c) != std::string_view::npos ||
        std::isdigit(static_cast<unsigned char>(c))) {
      output_ += pattern_.substr(position_, 2);
      position_ += 2;
      // More digits belong to the same reference or octal code.
      while (std::isdigit(static_cast<unsigned char>(c)) && !at_end() &&
             std::isdigit(static_cast<unsigned char>(pattern_[position_]))) {
        output_ += pattern_[position_++];
      }
      return;
    }
    if (next_is("\\k<")) {
      const size_t end = pattern_.find('>', position_);
      if (end == std::string_view::npos) fail("group name without end");
      output_ += pattern_.substr(position_, end + 1 - position_);
      position_ = end + 1;
      return;
    }
    if (const std::optional<CharacterSet> set = set_escape(kBareWord)) {
      output_ += set->as_regex();
      return;
    }
    output_ += literal_escape();
  }

  /// An escape that stands for a set, inside or outside a class; nothing (and nothing consumed) for
  /// other escapes.
  /// @param word the set \w, which depends on the place
  std::optional<CharacterSet> set_escape(std::string_view word) {
    const char c = pattern_[position_ + 1];
    if (c == 'p' || c == 'P') return property(word);
    std::string_view items;
    switch (std::tolower(static_cast<unsigned char>(c))) {
      case 's':
        items = kSpace;
        break;
      case 'w':
        items = word;
        break;
      case 'd':
        items = kDigit;
        break;
      case 'h':
        items = kHexDigit;
        break;
      default:
        return std::nullopt;
    }
    position_ += 2;
    return CharacterSet{std::string(items), std::isupper(static_cast<unsigned char>(c)) != 0};
  }

  /// \p{name}, \P{name}, \p{^name}.
  CharacterSet property(std::string_view word) {
    bool negated = pattern_[position_ + 1] == 'P';
    position_ += 2;
    if (!take("{")) fail("expected { behind \\p");
    const size_t end = pattern_.find('}', position_);
    if (end == std::string_view::npos) fail("property name without end");
    std::string_view name = pattern_.substr(position_, end - position_);
    if (name.starts_with("^")) {
      negated = !negated;
      name.remove_prefix(1);
    }
    std::string loose;  // case, spaces, hyphens and underscores do not count
    for (const char c : name) {
      if (c == ' ' || c == '-' || c == '_') continue;
      if (!std::isalnum(static_cast<unsigned char>(c))) fail("malformed property name");
      loose += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    position_ = end + 1;
    // The two names whose properties are not what the POSIX classes hold.
    if (loose == "word") return {std::string(word), negated};
    if (loose == "punct") return {"\\p{P}", negated};
    if (const auto set = posix_set_items(loose)) return {std::string(*set), negated};
    if (const auto category = category_abbreviation(loose)) {
      return {"\\p{" + std::string(*category) + "}", negated};
    }
    // Without sc: PCRE2 would match the property Script_Extensions, which is wider.
    return {(is_script_(loose) ? "\\p{sc:" : "\\p{") + loose + "}", negated};
  }

  /// An escape that stands for one character, written for PCRE2.
  std::string literal_escape() {
    const size_t begin = ++position_;
    const char32_t c = utf8::decode(pattern_, position_);
    switch (c) {
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        return {'\\', static_cast<char>(c)};
      case 'v':
        return "\\x0b";
      case 'u':
        return code_point(4);
      case 'x':
        if (take("{")) {
          std::string hex = code_point(0);
          if (!take("}")) fail("expected } behind \\x{…");
          return hex;
        }
        return code_point(2);
      default:
        break;
    }
    if (c < 0x80 && std::isalnum(static_cast<int>(c))) {
      fail(std::string{'\\', static_cast<char>(c)} + " is not supported");
    }
    std::string character(pattern_.substr(begin, position_ - begin));
    if (c < 0x80) character.insert(character.begin(), '\\');
    return character;
  }

  /// Hexadecimal digits as \x{…}: exactly 4, at most 2, or (0) as many as there are.
  std::string code_point(size_t count) {
    const size_t begin = position_;
    while (!at_end() && std::isxdigit(static_cast<unsigned char>(pattern_[position_])) &&
           (count == 0 || position_ - begin < count)) {
      ++position_;
    }
    const std::string hex(pattern_.substr(begin, position_ - begin));
    constexpr size_t kLongest = 8;
    if (hex.empty() || hex.size() > kLongest || (count == 4 && hex.size() != count))
      fail("malformed code point");
    if (count == 2 && std::stoul(hex, nullptr, 16) >= 0x80)
      fail("\\x of a lone byte is not supported");
    return "\\x{" + hex + "}";
  }

  /// The rest of a class behind its "[", up to and with its "]": a regex that matches one
  /// character.
  std::string character_class(int depth) {
    if (depth > kMaxGroupDepth) fail("classes nest too deeply");
    const bool negated = take("^");
    std::vector<std::string> operands;  // of &&
    CharacterSet items;
    std::vector<std::string> alternatives;  // what cannot be an item
    const auto finish_operand = [&] {
      if (!items.items.empty()) alternatives.insert(alternatives.begin(), items.as_regex());
      if (alternatives.empty()) fail("empty character class");
      std::string joined;
      for (const std::string& alternative : alternatives)
        joined += (joined.empty() ? "" : "|") + alternative;
      operands.push_back(alternatives.size() == 1 ? joined : "(?:" + joined + ")");
    };
    for (bool first = true;; first = false) {
      if (at_end()) fail("character class without end");
      if (next_is("]") && !first) break;
      if (take("&&")) {
        finish_operand();
        items = {};
        alternatives.clear();
        continue;
      }
      class_item(depth, items.items, alternatives);
    }
    ++position_;
    if (negated && operands.empty() && alternatives.empty())
      return CharacterSet{items.items, true}.as_regex();
    finish_operand();
    std::string result;
    for (size_t i = 0; i + 1 < operands.size(); ++i) result += "(?=" + operands[i] + ")";
    result += operands.back();
    if (negated) return "(?:(?!" + result + ")(?s:.))";
    return operands.size() == 1 ? result : "(?:" + result + ")";
  }

  void class_item(int depth, std::string& items, std::vector<std::string>& alternatives) {
    const auto add_set = [&](const CharacterSet& set) {
      if (set.negated) {
        alternatives.push_back(set.as_regex());
      } else {
        items += set.items;
      }
      // A hyphen behind a set is no range.
      if (take("-")) items += "\\-";
    };
    if (take("[:")) return add_set(posix_set());
    if (take("[")) {
      alternatives.push_back(character_class(depth + 1));
      if (take("-")) items += "\\-";
      return;
    }
    if (next_is("\\")) {
      if (position_ + 1 == pattern_.size()) fail("backslash at the end");
      if (const std::optional<CharacterSet> set = set_escape(kWord)) return add_set(*set);
    }
    items += class_character();
    if (!next_is("-")) return;
    // A hyphen makes a range only between two single characters.
    const std::string_view after = pattern_.substr(position_ + 1);
    const bool before_set = after.size() > 1 && after[0] == '\\' &&
                            std::string_view("sSwWdDhHpP").find(after[1]) != std::string_view::npos;
    if (after.empty() || after[0] == ']' || after[0] == '[' || after.starts_with("&&") ||
        before_set) {
      ++position_;
      items += "\\-";
      return;
    }
    ++position_;
    items += '-';
    items += class_character();
  }

  std::string class_character() {
    if (take("\\b")) return "\\x08";
    if (next_is("\\")) return literal_escape();
    const size_t begin = position_;
    utf8::decode(pattern_, position_);
    const std::string character(pattern_.substr(begin, position_ - begin));
    return std::string_view("[]^-\\").find(character) != std::string_view::npos ? "\\" + character
                                                                                : character;
  }

  CharacterSet posix_set() {
    const bool negated = take("^");
    const size_t end = pattern_.find(":]", position_);
    const auto set = posix_set_items(pattern_.substr(position_, end - position_));
    if (end == std::string_view::npos || !set) fail("unknown POSIX class");
    position_ = end + 2;
    return {std::string(*set), negated};
  }

  std::string_view pattern_;
  const std::function<bool(std::string_view)>& is_script_;
  size_t position_ = 0;
  std::string output_;
  std::vector<Group> groups_;
  int top_flag_groups_ = 0;
  size_t atom_begin_ = 0;    ///< where the last atom starts in the output
  bool has_atom_ = false;    ///< there is something for a quantifier to repeat
  bool quantified_ = false;  ///< the last atom has a quantifier already
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern,
                                const std::function<bool(std::string_view)>& is_script) {
  return Translator(pattern, is_script).run();
}

}  // namespace tandem
