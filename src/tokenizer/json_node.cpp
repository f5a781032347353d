#include "tokenizer/json_node.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "tandem/error.h"
#include "tokenizer/utf8.h"

namespace tandem {
namespace {

std::string describe(const nlohmann::json& value) {
  switch (value.type()) {
    case nlohmann::json::value_t::null:
      return "null";
    case nlohmann::json::value_t::object:
      return "an object";
    case nlohmann::json::value_t::array:
      return "an array";
    case nlohmann::json::value_t::string:
      return quote(value.get_ref<const std::string&>());
    default:
      return value.dump();
  }
}

}  // namespace

std::string quote(std::string_view bytes) {
  constexpr size_t kLongestShown = 80;
  std::string text;
  utf8::append_lossy(text, bytes, true);
  std::string result = "'";
  for (size_t i = 0; i < text.size();) {
    if (i >= kLongestShown) return result + "…'";
    const size_t begin = i;
    utf8::decode(text, i);
    const auto byte = static_cast<unsigned char>(text[begin]);
    if (byte < 0x20 || byte == 0x7F) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
      result += escaped;
    } else {
      result.append(text, begin, i - begin);
    }
  }
  return result + "'";
}

JsonNode::JsonNode(const nlohmann::json& value, const std::string& file)
    : value_(&value), file_(&file) {}

JsonNode::JsonNode(const nlohmann::json& value, const std::string& file, std::string place)
    : value_(&value), file_(&file), place_(std::move(place)) {}

bool JsonNode::is_null() const { return value_->is_null(); }

bool JsonNode::has(std::string_view key) const {
  if (!value_->is_object()) return false;
  const auto member = value_->find(key);
  return member != value_->end() && !member->is_null();
}

JsonNode JsonNode::at(std::string_view key) const {
  if (!value_->is_object()) fail("expected an object, found " + describe(*value_));
  const auto member = value_->find(key);
  if (member == value_->end()) fail("lacks " + quote(key));
  return {*member, *file_, place_.empty() ? std::string(key) : place_ + "." + std::string(key)};
}

std::vector<JsonNode> JsonNode::elements() const {
  if (!value_->is_array()) fail("expected an array, found " + describe(*value_));
  std::vector<JsonNode> nodes;
  nodes.reserve(value_->size());
  for (const nlohmann::json& element : *value_) {
    nodes.push_back({element, *file_, place_ + "[" + std::to_string(nodes.size()) + "]"});
  }
  return nodes;
}

std::string JsonNode::string() const {
  if (!value_->is_string()) fail("expected a string, found " + describe(*value_));
  return value_->get<std::string>();
}

bool JsonNode::boolean() const {
  if (!value_->is_boolean()) fail("expected true or false, found " + describe(*value_));
  return value_->get<bool>();
}

int64_t JsonNode::integer(int64_t low, int64_t high) const {
  // A number beyond int64 is stored as unsigned and would wrap around.
  const bool fits = value_->is_number_unsigned()
                        ? value_->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)
                        : value_->is_number_integer();
  if (!fits || value_->get<int64_t>() < low || value_->get<int64_t>() > high) {
    fail("expected an integer from " + std::to_string(low) + " to " + std::to_string(high) +
         ", found " + describe(*value_));
  }
  return value_->get<int64_t>();
}

int32_t JsonNode::token_id() const { return static_cast<int32_t>(integer(0, kMaxTokenId)); }

char32_t JsonNode::character() const {
  const std::string text = string();
  size_t end = 0;
  const char32_t code_point = text.empty() ? 0 : utf8::decode(text, end);
  if (text.empty() || end != text.size()) fail("expected a single character, found " + quote(text));
  return code_point;
}

bool JsonNode::boolean(std::string_view key, bool otherwise) const {
  return has(key) ? at(key).boolean() : otherwise;
}

std::optional<std::string> JsonNode::optional_string(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return at(key).string();
}

std::string JsonNode::type() const { return at("type").string(); }

void JsonNode::fail_unknown_type(std::string_view what,
                                 std::span<const std::string_view> known) const {
  std::string list;
  for (const std::string_view name : known) {
    if (!list.empty()) list += ", ";
    list += name;
  }
  fail(std::string(what) + " type " + quote(type()) + " is not supported (known: " + list + ")");
}

void JsonNode::fail(const std::string& message) const {
  throw ModelError(*file_ + ": " + (place_.empty() ? "" : place_ + ": ") + message);
}

}  // namespace tandem
