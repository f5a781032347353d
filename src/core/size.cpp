#include "core/size.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "tandem/error.h"

namespace tandem {

uint64_t parse_size(std::string_view text) {
  const auto refuse = [&]() -> uint64_t {
    throw ConfigError(
        "size '" + std::string(text) +
        "' is not understood; write bytes, or a number with KiB, MiB or GiB, such as '512MiB'");
  };
  size_t digits = 0;
  while (digits < text.size() &&
         ((text[digits] >= '0' && text[digits] <= '9') || text[digits] == '.'))
    ++digits;
  std::string_view unit = text.substr(digits);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  uint64_t factor = 1;
  if (unit == "KiB") {
    factor = kKiB;
  } else if (unit == "MiB") {
    factor = kMiB;
  } else if (unit == "GiB") {
    factor = kGiB;
  } else if (!unit.empty()) {
    return refuse();
  }
  const std::string_view number = text.substr(0, digits);
  if (number.empty()) return refuse();
  const char* const end = number.data() + number.size();
  if (number.find('.') == std::string_view::npos) {
    uint64_t value = 0;
    const auto parsed = std::from_chars(number.data(), end, value);
    if (parsed.ec != std::errc() || parsed.ptr != end || value > UINT64_MAX / factor)
      return refuse();
    return value * factor;
  }
  if (factor == 1) return refuse();
  double value = 0;
  const auto parsed = std::from_chars(number.data(), end, value);
  constexpr double kLimit = 9e18;
  if (parsed.ec != std::errc() || parsed.ptr != end || value * static_cast<double>(factor) > kLimit)
    return refuse();
  return static_cast<uint64_t>(std::llround(value * static_cast<double>(factor)));
}

std::string format_size(uint64_t bytes) {
  char text[32];
  const auto value = static_cast<double>(bytes);
  if (bytes >= kGiB) {
    std::snprintf(text, sizeof text, "%.2f GiB", value / static_cast<double>(kGiB));
  } else if (bytes >= kMiB) {
    std::snprintf(text, sizeof text, "%.1f MiB", value / static_cast<double>(kMiB));
  } else if (bytes >= kKiB) {
    std::snprintf(text, sizeof text, "%.1f KiB", value / static_cast<double>(kKiB));
  } else {
    std::snprintf(text, sizeof text, "%u B", static_cast<unsigned>(bytes));
  }
  return text;
}

}  // namespace tandem
