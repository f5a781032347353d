#include "engine/strict_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "tandem/error.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 16;
constexpr size_t kBriefBytes = 60;
constexpr size_t kReasonBytes = 160;

/// "name:line:column" of a byte, both counted from 1 (the column in bytes).
std::string position_of(std::string_view text, size_t byte, std::string_view name) {
  const std::string_view before = text.substr(0, std::min(byte, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t line_start =
      before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return std::string(name) + ":" + std::to_string(line) + ":" +
         std::to_string(before.size() - line_start + 1);
}

/// Cuts UTF-8 text to at most `bytes`, never inside a character.
std::string shorten(std::string text, size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0u) == 0x80u) --bytes;
  text.resize(bytes);
  return text + "…";
}

/// The library's message "[id] parse error at line 1, column 2: reason; last read: '…'; expected …"
/// without what is said elsewhere (the position) and without its quote of the input, which may hold
/// anything.
std::string reason_of(const json::exception& error) {
  std::string text = error.what();
  const auto drop_through = [&text](std::string_view mark, size_t from) {
    const size_t at = text.find(mark, from);
    if (at != std::string::npos) text.erase(0, at + mark.size());
  };
  drop_through("] ", 0);
  if (const size_t column = text.find("column "); column != std::string::npos) {
    drop_through(": ", column);
  }
  if (const size_t quote = text.find("; last read: "); quote != std::string::npos) {
    const size_t expected = text.rfind("; expected ");
    const bool behind = expected != std::string::npos && expected > quote;
    text.erase(quote, behind ? expected - quote : std::string::npos);
  }
  return shorten(std::move(text), kReasonBytes);
}

}  // namespace

json parse_strict_json(std::string_view text, std::string_view name) {
  std::vector<std::set<std::string>> keys_of_open_objects;
  const auto check = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > kMaxDepth) {
      throw ConfigError(std::string(name) + ": nested deeper than " + std::to_string(kMaxDepth) +
                        " levels");
    }
    if (event == json::parse_event_t::object_start) keys_of_open_objects.emplace_back();
    if (event == json::parse_event_t::object_end) keys_of_open_objects.pop_back();
    if (event == json::parse_event_t::key &&
        !keys_of_open_objects.back().insert(value.get_ref<const std::string&>()).second) {
      throw ConfigError(std::string(name) + ": key " + brief(value) +
                        " stands twice in one object; remove one of them");
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), check);
  } catch (const json::parse_error& error) {
    const size_t byte = error.byte == 0 ? 0 : error.byte - 1;
    throw ConfigError(position_of(text, byte, name) + ": not valid JSON: " + reason_of(error));
  } catch (const json::exception& error) {
    throw ConfigError(std::string(name) + ": not valid JSON: " + reason_of(error));
  }
}

std::string_view describe_type(const json& value) {
  switch (value.type()) {
    case json::value_t::null:
      return "null";
    case json::value_t::boolean:
      return "a boolean";
    case json::value_t::number_integer:
    case json::value_t::number_unsigned:
      return "an integer";
    case json::value_t::number_float:
      return "a number";
    case json::value_t::string:
      return "a string";
    case json::value_t::array:
      return "a list";
    case json::value_t::object:
      return "an object";
    default:
      return "unknown";
  }
}

std::string brief(const json& value) {
  return shorten(value.dump(-1, ' ', false, json::error_handler_t::replace), kBriefBytes);
}

}  // namespace tandem
