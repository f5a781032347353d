#include "core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include "tandem/error.h"

namespace tandem {

spdlog::logger& log() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto made = std::make_shared<spdlog::logger>(
        "tandem", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%n: %^%l%$: %v");
    made->set_level(spdlog::level::warn);
    return made;
  }();
  return *logger;
}

void set_log_level(const std::string& level) {
  const spdlog::level::level_enum parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    throw UsageError("log level '" + level +
                     "' is unknown; use trace, debug, info, warning, error or off");
  }
  log().set_level(parsed);
}

}  // namespace tandem
