#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tandem::utf8 {

inline constexpr char32_t kReplacement = 0xFFFD;
inline constexpr char32_t kMaxCodePoint = 0x10FFFF;

/// The code point at `position` of a valid text; moves `position` behind it.
char32_t decode(std::string_view text, size_t& position);

/// The code point that ends at `end` of a valid text; moves `end` to its start.
char32_t decode_backwards(std::string_view text, size_t& end);

/// Appends the bytes of a code point.
void append(std::string& text, char32_t code_point);

/// Appends `bytes` to `text` with every maximal ill-formed part replaced by U+FFFD (Unicode 15,
/// section 3.9).
/// @param final false: an unfinished character at the end is left alone
/// @return the number of bytes consumed; all of them when `final`
size_t append_lossy(std::string& text, std::string_view bytes, bool final);

/// Unicode property White_Space.
bool is_white_space(char32_t code_point);

/// Unicode general category N (Nd, Nl, No).
bool is_numeric(char32_t code_point);

/// Unicode general category P, or ASCII punctuation.
bool is_punctuation(char32_t code_point);

/// Unicode general category M.
bool is_mark(char32_t code_point);

}  // namespace tandem::utf8
