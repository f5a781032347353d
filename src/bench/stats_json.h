#pragma once

#include <nlohmann/json.hpp>

#include "tandem/stats.h"

namespace tandem::bench {

/// Every field of Stats, by its name.
nlohmann::ordered_json stats_to_json(const Stats& stats);
/// What `stats_to_json` made. @throws nlohmann::json::exception when a field is missing or of
/// another type
Stats stats_from_json(const nlohmann::json& json);

}  // namespace tandem::bench
