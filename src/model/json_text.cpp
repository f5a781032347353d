#include "model/json_text.h"

#include <algorithm>

#include "tandem/error.h"

namespace tandem {
namespace {

constexpr size_t kMaxQuoted = 80;
constexpr size_t kMaxProblem = 200;

std::string shortened(std::string text, size_t limit) {
  if (text.size() > limit) text = text.substr(0, limit) + "...";
  return text;
}

}  // namespace

std::string shown(const nlohmann::json& value) {
  return shortened(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace), kMaxQuoted);
}

std::string shown_name(std::string_view text) {
  const nlohmann::json value = std::string(text.substr(0, kMaxQuoted));
  const std::string dumped = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  return "'" + dumped.substr(1, dumped.size() - 2) + (text.size() > kMaxQuoted ? "...'" : "'");
}

std::string describe(const nlohmann::json::exception& error) {
  std::string text = shortened(error.what(), kMaxProblem);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return "not valid JSON: " + text;
}

nlohmann::json parse_json_object(std::string_view text, std::string_view name) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw ModelError(std::string(name) + ": " + describe(error));
  }
  if (!json.is_object()) {
    throw ModelError(std::string(name) + ": the top level is not a JSON object");
  }
  return json;
}

}  // namespace tandem
