#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tandem::testing {

/// Holds a value against a JSON schema (draft 2020-12), as far as the project's schemas go: $ref to
/// "#/…", anyOf, const, enum, type, minimum, maximum, minItems, items, properties, required and
/// additionalProperties.
/// @returns what does not fit, each with its place; empty when the value is valid
/// @throws std::runtime_error on a keyword that it does not know, so that none is passed over
std::vector<std::string> schema_violations(const nlohmann::json& schema,
                                           const nlohmann::json& value);

}  // namespace tandem::testing
