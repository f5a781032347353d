#include "tokenizer/byte_level.h"

#include <array>

#include "tokenizer/utf8.h"

namespace tandem::byte_level {
namespace {

constexpr char32_t kFirstStandIn = 0x100;
constexpr size_t kStandIns = 68;  // bytes that are not printable in Latin-1

constexpr bool is_printable(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Tables {
  std::array<char32_t, 256> characters{};
  std::array<uint8_t, kStandIns> bytes{};  ///< of U+0100 and up
};

constexpr Tables make_tables() {
  Tables tables;
  size_t stand_ins = 0;
  for (unsigned byte = 0; byte < 256; ++byte) {
    if (is_printable(byte)) {
      tables.characters[byte] = byte;
    } else {
      tables.bytes[stand_ins] = static_cast<uint8_t>(byte);
      tables.characters[byte] = kFirstStandIn + static_cast<char32_t>(stand_ins++);
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

char32_t character_of(uint8_t byte) { return kTables.characters[byte]; }

void append_characters(std::string& text, std::string_view bytes) {
  for (const char byte : bytes) utf8::append(text, character_of(static_cast<uint8_t>(byte)));
}

std::optional<std::string> bytes_of(std::string_view token) {
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const char32_t c = utf8::decode(token, i);
    if (c < kFirstStandIn && is_printable(c)) {
      bytes.push_back(static_cast<char>(c));
    } else if (c >= kFirstStandIn && c < kFirstStandIn + kStandIns) {
      bytes.push_back(static_cast<char>(kTables.bytes[c - kFirstStandIn]));
    } else {
      return std::nullopt;
    }
  }
  return bytes;
}

}  // namespace tandem::byte_level
