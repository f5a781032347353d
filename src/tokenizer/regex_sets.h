#pragma once

#include <optional>
#include <string_view>

/// The sets of characters that Oniguruma's escapes, POSIX classes and property names stand for,
/// written as the inside of a PCRE2 character class.
namespace tandem::regex_sets {

inline constexpr std::string_view kSpace =
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
    "\\x{3000}";
inline constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
// Outside of brackets Oniguruma also counts the Latin-1 superscripts and fractions as word
// characters.
inline constexpr std::string_view kBareWord =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe";
inline constexpr std::string_view kHexDigit = "0-9a-fA-F";
inline constexpr std::string_view kDigit = "\\p{Nd}";

/// The items of a POSIX class ("alpha"), also used for the properties of the same names.
std::optional<std::string_view> posix_set_items(std::string_view name);

/// PCRE2 knows general categories by their abbreviations alone: "uppercaseletter" → "Lu".
std::optional<std::string_view> category_abbreviation(std::string_view long_name);

}  // namespace tandem::regex_sets
