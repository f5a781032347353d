#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tandem {

/// A JSON value as a message shows it: one line of printable ASCII, cut where it is long.
std::string shown(const nlohmann::json& value);

/// The same for text that comes from a file, in single quotes.
std::string shown_name(std::string_view text);

/// Parses text that must be one JSON object.
/// @param name what messages call the text
/// @throws ModelError of one line
nlohmann::json parse_json_object(std::string_view text, std::string_view name);

/// "not valid JSON: …", cut where it is long: a message quotes what was read last.
std::string describe(const nlohmann::json::exception& error);

}  // namespace tandem
