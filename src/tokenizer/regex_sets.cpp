#include "tokenizer/regex_sets.h"

#include <array>

namespace tandem::regex_sets {
namespace {

/// A name and what it stands for.
struct NamedSet {
  std::string_view name;
  std::string_view items;
};

constexpr std::array<NamedSet, 13> kPosixSets{{
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"alpha", "\\p{Alphabetic}"},
    {"ascii", "\\x00-\\x7f"},
    {"blank", "\\x09\\p{Zs}"},
    {"cntrl", "\\p{Cc}"},
    {"digit", kDigit},
    {"lower", "\\p{Lowercase}"},
    {"punct", "\\p{P}\\p{S}"},
    {"space", kSpace},
    {"upper", "\\p{Uppercase}"},
    {"word", kWord},
    {"xdigit", kHexDigit},
    {"any", "\\x00-\\x{10ffff}"},
}};

/// Long names of general categories, which PCRE2 knows by their abbreviation alone.
constexpr std::array<NamedSet, 38> kCategories{{
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"unassigned", "Cn"},
    {"privateuse", "Co"},
    {"surrogate", "Cs"},
    {"letter", "L"},
    {"casedletter", "L&"},
    {"lowercaseletter", "Ll"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"titlecaseletter", "Lt"},
    {"uppercaseletter", "Lu"},
    {"mark", "M"},
    {"combiningmark", "M"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"nonspacingmark", "Mn"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"closepunctuation", "Pe"},
    {"finalpunctuation", "Pf"},
    {"initialpunctuation", "Pi"},
    {"otherpunctuation", "Po"},
    {"openpunctuation", "Ps"},
    {"symbol", "S"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"mathsymbol", "Sm"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"lineseparator", "Zl"},
    {"spaceseparator", "Zs"},
}};

template <size_t N>
std::optional<std::string_view> find_set(const std::array<NamedSet, N>& sets,
                                         std::string_view name) {
  for (const NamedSet& set : sets) {
    if (set.name == name) return set.items;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string_view> posix_set_items(std::string_view name) {
  return find_set(kPosixSets, name);
}

std::optional<std::string_view> category_abbreviation(std::string_view long_name) {
  return find_set(kCategories, long_name);
}

}  // namespace tandem::regex_sets
