// Any bytes as a configuration file: either an error for people or a configuration that writes and
// reads back the same.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "tandem/config.h"
#include "tandem/error.h"

namespace {

/// Ends the run with a finding unless what must hold holds.
void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  tandem::Config config;
  try {
    config = tandem::Config::from_json(text, "nowhere", "fuzz.json");
  } catch (const tandem::ConfigError& error) {
    const std::string_view message = error.what();
    require(message.starts_with("fuzz.json") && message.find('\n') == std::string_view::npos);
    return 0;
  }
  const std::string written = config.to_json();
  require(tandem::Config::from_json(written, "nowhere").to_json() == written);
  try {
    config.validate();
  } catch (const tandem::ConfigError&) {
  }
  return 0;
}
