#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tandem {

/// The candidate that somebody who wrote `word` may have meant: of those that begin with it, or
/// else of all, the one with the smallest edit distance (the first of equals). Empty when there is
/// none.
std::string nearest(std::string_view word, std::span<const std::string> candidates);

/// Whether `word` is a beginning of `candidate`, or more than half of it is spelt as the candidate.
bool resembles(std::string_view word, std::string_view candidate);

/// Byte offset of the first sequence that is no well-formed UTF-8 (Unicode 15, table 3-7: no
/// overlong forms, no surrogates); nothing when the text is valid.
std::optional<size_t> find_invalid_utf8(std::string_view text);

}  // namespace tandem
