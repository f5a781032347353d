#pragma once

#include <string_view>

namespace tandem::bench {

/// The files of bench/prompts as JSON lines, compiled in.
extern const std::string_view kBundledPrompts;

}  // namespace tandem::bench
