#pragma once

#include <string>

// Debian 12 ships Catch2 v2, Ubuntu 24.04 v3: include whichever is there.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;

/// Matches strings that hold this part, for CHECK_THAT and CHECK_THROWS_WITH.
inline auto ContainsText(const std::string& part) {
  return Catch::Matchers::ContainsSubstring(part);
}
#else
#include <catch2/catch.hpp>

/// Matches strings that hold this part, for CHECK_THAT and CHECK_THROWS_WITH.
inline auto ContainsText(const std::string& part) { return Catch::Matchers::Contains(part); }
#endif
