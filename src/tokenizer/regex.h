#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/json_node.h"

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;

namespace tandem {

/// Half-open byte range of a text.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
  bool operator==(const TextRange&) const = default;
};

/// A compiled Oniguruma-flavoured pattern, run by PCRE2 (JIT where the machine has it) over valid
/// UTF-8. Move-only; const functions may run in several threads at once.
class Regex {
 public:
  /// @throws RegexError when the pattern is malformed or uses what is not supported
  explicit Regex(std::string_view pattern);

  /// All matches from left to right. They do not overlap, and an empty match does not touch the
  /// match before it; an empty text has none.
  /// @throws ModelError when the text makes the pattern backtrack beyond reason
  void find_all(std::string_view text, std::vector<TextRange>& matches) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  struct FreeContext {
    void operator()(pcre2_real_match_context_8* context) const;
  };

  std::string pattern_;
  std::unique_ptr<pcre2_real_code_8, FreeCode> code_;
  std::unique_ptr<pcre2_real_match_context_8, FreeContext> context_;
  bool jit_ = false;
};

/// What Split and Replace look for: a literal text or a regex.
class Pattern {
 public:
  /// Reads {"String": "…"} or {"Regex": "…"}. @throws ModelError
  static Pattern parse(const JsonNode& node);
  explicit Pattern(Regex regex) : regex_(std::make_unique<const Regex>(std::move(regex))) {}

  /// All matches from left to right, without overlap.
  void find_all(std::string_view text, std::vector<TextRange>& matches) const;
  /// `text` with every match replaced by `content`.
  std::string replace(std::string_view text, std::string_view content) const;

 private:
  explicit Pattern(std::string literal) : literal_(std::move(literal)) {}

  std::string literal_;
  std::unique_ptr<const Regex> regex_;  ///< null for a literal
};

}  // namespace tandem
