#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tandem {

/// The candidate with the smallest edit distance to `word` (the first of equals); empty when there
/// is none.
std::string nearest(std::string_view word, std::span<const std::string> candidates);

/// Byte offset of the first sequence that is no well-formed UTF-8 (Unicode 15, table 3-7: no
/// overlong forms, no surrogates); nothing when the text is valid.
std::optional<size_t> find_invalid_utf8(std::string_view text);

}  // namespace tandem
