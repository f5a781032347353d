#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tandem {

/// A pattern that cannot be compiled, or means something that has no counterpart here.
class RegexError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Rewrites an Oniguruma pattern (what tokenizer.json files are written for) as a PCRE2 pattern of
/// the same meaning, to be compiled with UTF, UCP and MULTILINE. The differences that matter: the
/// sets of \s, \w, \h, \v and \b; property names; nested and intersected character classes; `(?m)`,
/// which lets the dot match newlines; `{n,m}+`, which repeats instead of being possessive; `(?i)`
/// in mid-pattern, which reaches over the alternatives behind it.
/// @param is_script says whether PCRE2 knows a script of this name; \p{Han} means the property
/// Script
/// @throws RegexError for constructs that have no counterpart
std::string translate_oniguruma(std::string_view pattern,
                                const std::function<bool(std::string_view)>& is_script);

}  // namespace tandem
