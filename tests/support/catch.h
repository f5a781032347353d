#pragma once

// Debian 12 ships Catch2 v2, Ubuntu 24.04 v3: include whichever is there.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
