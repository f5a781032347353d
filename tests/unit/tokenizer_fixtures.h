#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace tandem::testing {

using Ids = std::vector<int32_t>;

/// The fixtures that tools/make_tokenizer_fixtures.py wrote, one for each style of tokenizer.
std::vector<std::string> fixture_names();

/// tests/unit/data/tokenizers/<name>.json
nlohmann::json fixture(const std::string& name);

/// The tokenizer of a fixture.
Tokenizer fixture_tokenizer(const std::string& name);

}  // namespace tandem::testing
