#include "support/json_schema.h"

#include <algorithm>
#include <set>
#include <stdexcept>

namespace tandem::testing {
namespace {

using nlohmann::json;

const std::set<std::string> kKnown = {"$schema", "$defs",    "$ref",        "anyOf",
                                      "const",   "enum",     "type",        "minimum",
                                      "maximum", "minItems", "items",       "properties",
                                      "title",   "required", "description", "additionalProperties"};

bool has_type(const json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  throw std::runtime_error("unknown type " + type);
}

class Validator {
 public:
  explicit Validator(const json& root) : root_(root) {}

  void check(const json& schema, const json& value, const std::string& place) {
    for (const auto& keyword : schema.items()) {
      if (!kKnown.contains(keyword.key())) {
        throw std::runtime_error("unknown keyword " + keyword.key());
      }
    }
    if (schema.contains("$ref")) {
      const auto reference = schema["$ref"].get<std::string>();
      check(root_.at(json::json_pointer(reference.substr(1))), value, place);
    }
    if (schema.contains("anyOf")) check_any(schema["anyOf"], value, place);
    if (schema.contains("const") && value != schema["const"]) {
      fail(place, "is not " + schema["const"].dump());
    }
    if (schema.contains("enum")) {
      const json& choices = schema["enum"];
      if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
        fail(place, "is none of " + choices.dump());
      }
    }
    if (schema.contains("type")) check_type(schema["type"], value, place);
    if (value.is_number()) check_range(schema, value, place);
    if (value.is_array()) check_array(schema, value, place);
    if (value.is_object()) check_object(schema, value, place);
  }

  std::vector<std::string> violations;

 private:
  void fail(const std::string& place, const std::string& what) {
    violations.push_back((place.empty() ? "/" : place) + " " + what);
  }

  void check_any(const json& schemas, const json& value, const std::string& place) {
    for (const json& schema : schemas) {
      Validator alternative(root_);
      alternative.check(schema, value, place);
      if (alternative.violations.empty()) return;
    }
    fail(place, "fits no alternative");
  }

  void check_type(const json& types, const json& value, const std::string& place) {
    const json list = types.is_array() ? types : json::array({types});
    const bool fits = std::any_of(list.begin(), list.end(), [&](const json& type) {
      return has_type(value, type.get<std::string>());
    });
    if (!fits) fail(place, "is no " + types.dump());
  }

  void check_range(const json& schema, const json& value, const std::string& place) {
    if (schema.contains("minimum") && value < schema["minimum"]) fail(place, "is too small");
    if (schema.contains("maximum") && value > schema["maximum"]) fail(place, "is too large");
  }

  void check_array(const json& schema, const json& value, const std::string& place) {
    if (schema.contains("minItems") && value.size() < schema["minItems"].get<size_t>()) {
      fail(place, "has too few items");
    }
    if (!schema.contains("items")) return;
    for (size_t i = 0; i < value.size(); ++i) {
      check(schema["items"], value[i], place + "/" + std::to_string(i));
    }
  }

  void check_object(const json& schema, const json& value, const std::string& place) {
    for (const json& key : schema.value("required", json::array())) {
      if (!value.contains(key.get<std::string>())) fail(place, "lacks " + key.dump());
    }
    const json properties = schema.value("properties", json::object());
    const json others = schema.value("additionalProperties", json(true));
    for (const auto& [key, member] : value.items()) {
      if (properties.contains(key)) {
        check(properties[key], member, place + "/" + key);
      } else if (others.is_object()) {
        check(others, member, place + "/" + key);
      } else if (!others.get<bool>()) {
        fail(place, "has the unknown key " + key);
      }
    }
  }

  const json& root_;
};

}  // namespace

std::vector<std::string> schema_violations(const json& schema, const json& value) {
  Validator validator(schema);
  validator.check(schema, value, "");
  return validator.violations;
}

}  // namespace tandem::testing
