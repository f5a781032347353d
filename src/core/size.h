#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

/// Parses "1048576", "512KiB", "1.5GiB" (KiB, MiB and GiB only) into bytes.
/// @throws ConfigError that names the text and the accepted units
uint64_t parse_size(std::string_view text);

/// "1.50 GiB", "312.0 MiB", "17 B": for people.
std::string format_size(uint64_t bytes);

/// Rounds up to a multiple of `alignment` (> 0).
constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace tandem
