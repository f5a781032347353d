#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// The largest token id that a file may use. Real vocabularies stay below 2^19; the bound keeps a
/// hostile file from asking for gigabytes of tables.
inline constexpr int64_t kMaxTokenId = (1 << 22) - 1;

/// A value of a JSON document together with its place, so that every complaint names the file and
/// the place. A view: the document and the file's name must outlive it.
class JsonNode {
 public:
  /// @param file the file's name in messages; must outlive the node
  JsonNode(const nlohmann::json& value, const std::string& file);

  const nlohmann::json& json() const { return *value_; }
  bool is_null() const;

  /// True when this is an object with a value other than null under `key`.
  bool has(std::string_view key) const;
  /// A member of this object. @throws ModelError when this is no object or lacks the key
  JsonNode at(std::string_view key) const;
  /// The elements of this array. @throws ModelError when it is none
  std::vector<JsonNode> elements() const;

  /// Typed values. @throws ModelError naming the type that was expected
  std::string string() const;
  bool boolean() const;
  int64_t integer(int64_t low, int64_t high) const;
  int32_t token_id() const;
  /// A string of exactly one code point.
  char32_t character() const;

  /// Members with a default for when the key is missing or null.
  bool boolean(std::string_view key, bool otherwise) const;
  std::optional<std::string> optional_string(std::string_view key) const;

  /// The member "type". @throws ModelError when missing
  std::string type() const;
  /// @throws ModelError: "<file>: <place>: type 'X' is not supported (known: …)"
  [[noreturn]] void fail_unknown_type(std::string_view what,
                                      std::span<const std::string_view> known) const;
  /// @throws ModelError: "<file>: <place>: <message>"
  [[noreturn]] void fail(const std::string& message) const;

 private:
  JsonNode(const nlohmann::json& value, const std::string& file, std::string place);

  const nlohmann::json* value_;
  const std::string* file_;
  std::string place_;
};

/// How deep sequences of components may nest in each other.
inline constexpr int kMaxNesting = 16;

/// 'bytes' for a one-line message: control characters escaped, invalid UTF-8 replaced, long texts
/// cut.
std::string quote(std::string_view bytes);

}  // namespace tandem
