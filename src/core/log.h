#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace tandem {

/// The library's logger: stderr, warnings and above unless `set_log_level` says otherwise.
/// Thread-safe.
spdlog::logger& log();

/// "trace", "debug", "info", "warning", "error", "off". @throws UsageError on anything else
void set_log_level(const std::string& level);

}  // namespace tandem
