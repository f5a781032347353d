#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace tandem {

/// Parses JSON that people wrote. Stricter than the library alone: an object may hold a key only
/// once, and nesting ends at a small depth. @param name what messages call the text
/// @throws ConfigError `name:line:column: …` on anything that is not one JSON value and nothing
/// else
nlohmann::json parse_strict_json(std::string_view text, std::string_view name);

/// "null", "a boolean", "an integer", "a number", "a string", "a list", "an object".
std::string_view describe_type(const nlohmann::json& value);

/// The value as JSON, cut to a length that fits in an error message.
std::string brief(const nlohmann::json& value);

}  // namespace tandem
