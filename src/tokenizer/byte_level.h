#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tandem::byte_level {

/// GPT-2's printable stand-in of a byte: printable Latin-1 stands for itself, the other 68 bytes
/// are written as U+0100, U+0101, … in ascending order (Radford et al. 2019, the reference
/// encoder).
char32_t character_of(uint8_t byte);

/// Appends the stand-ins of all bytes.
void append_characters(std::string& text, std::string_view bytes);

/// The bytes that a token's characters stand for; nothing when one of them is no stand-in.
std::optional<std::string> bytes_of(std::string_view token);

}  // namespace tandem::byte_level
