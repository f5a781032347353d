#include "tokenizer/utf8.h"

#include <utf8proc.h>

#include <cstdint>

namespace tandem::utf8 {
namespace {

struct Sequence {
  size_t length = 1;   ///< bytes that belong together: a character, or a maximal ill-formed part
  bool valid = false;  ///< a whole character
  bool truncated = false;  ///< the text ended before the character did
};

/// Classifies the bytes at `position` by table 3-7 of the Unicode standard.
Sequence classify(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(position);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms (E0, F0), surrogates (ED) and what lies beyond
  // U+10FFFF (F4).
  uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (position + i == text.size()) return {i, false, true};
    if (byte(position + i) < low || byte(position + i) > high) return {i, false, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true, false};
}

bool is_continuation(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

}  // namespace

char32_t decode(std::string_view text, size_t& position) {
  const auto lead = static_cast<uint8_t>(text[position++]);
  if (lead < 0x80) return lead;
  const int continuations = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  char32_t code_point = lead & (0x3F >> continuations);
  for (int i = 0; i < continuations; ++i) {
    code_point = (code_point << 6) | (static_cast<uint8_t>(text[position++]) & 0x3F);
  }
  return code_point;
}

char32_t decode_backwards(std::string_view text, size_t& end) {
  --end;
  while (end > 0 && is_continuation(text[end])) --end;
  size_t position = end;
  return decode(text, position);
}

void append(std::string& text, char32_t code_point) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

size_t append_lossy(std::string& text, std::string_view bytes, bool final) {
  size_t position = 0;
  while (position < bytes.size()) {
    const Sequence sequence = classify(bytes, position);
    if (sequence.truncated && !final) break;
    if (sequence.valid) {
      text.append(bytes.substr(position, sequence.length));
    } else {
      append(text, kReplacement);
    }
    position += sequence.length;
  }
  return position;
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_numeric(char32_t code_point) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t code_point) {
  const bool ascii_punctuation =
      (code_point >= '!' && code_point <= '/') || (code_point >= ':' && code_point <= '@') ||
      (code_point >= '[' && code_point <= '`') || (code_point >= '{' && code_point <= '~');
  if (ascii_punctuation) return true;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(char32_t code_point) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

}  // namespace tandem::utf8
