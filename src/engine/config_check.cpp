#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/device.h"
#include "engine/config_fields.h"
#include "engine/strict_json.h"
#include "tandem/error.h"

namespace tandem {
namespace {

std::string in_quotes(std::string_view text) { return brief(nlohmann::json(text)); }

/// Visitor of `visit_config` that checks one object's values.
class Checker {
 public:
  Checker(std::string prefix, const std::string& source)
      : prefix_(std::move(prefix)), source_(source) {}

  template <typename Section, typename Visit>
  void section(const char* key, const Section& section, const Visit& visit) {
    Checker inner(prefix_ + key + ".", source_);
    visit(inner, section);
  }
  template <typename Section, typename Visit>
  void optional_section(const char* key, const std::optional<Section>& section,
                        const Visit& visit) {
    if (section) this->section(key, *section, visit);
  }

  void path(const char* key, const std::filesystem::path& path) {
    const std::string& text = path.native();
    if (text.empty()) fail(key, "is missing; give the folder of the model");
    if (text.find('\0') != std::string::npos) fail(key, "holds a zero character");
  }
  void optional_file(const char* key, const std::optional<std::filesystem::path>& file) {
    if (!file) return;
    const std::string& text = file->native();
    if (text.empty()) fail(key, "is empty; give a file, or null");
    if (text.find('\0') != std::string::npos) fail(key, "holds a zero character");
  }
  void devices(const char* key, const std::string& devices) {
    if (devices != "auto") named(key, [&] { parse_device_list(devices); });
  }
  void device(const char* key, const std::string& device) {
    if (device != "auto") named(key, [&] { parse_device(device); });
  }
  void choice(const char* key, const std::string& choice, Choices choices) {
    if (std::find(choices.begin(), choices.end(), choice) != choices.end()) return;
    std::string list;
    for (const std::string_view one : choices) list += (list.empty() ? "" : ", ") + in_quotes(one);
    fail(key, "is " + in_quotes(choice) + "; expected one of " + list);
  }
  void integer(const char* key, int integer, int low = std::numeric_limits<int>::min(),
               int high = std::numeric_limits<int>::max()) {
    if (integer >= low && integer <= high) return;
    fail(key, "is " + std::to_string(integer) + "; expected an integer from " +
                  std::to_string(low) + " to " + std::to_string(high));
  }
  void integer_or_auto(const char* key, const std::optional<int>& integer, int low, int high) {
    if (integer) this->integer(key, *integer, low, high);
  }
  void number(const char*, float) {}
  void boolean(const char*, bool) {}
  void seed(const char*, const std::optional<uint64_t>&) {}
  void texts(const char*, const std::vector<std::string>&) {}
  void size_by_device(const char* key, const std::optional<uint64_t>& size,
                      const std::map<std::string, uint64_t>& by_device, uint64_t smallest) {
    constexpr const char* kNoMemory = "allows no memory at all; expected a size above 0, or null";
    if (size && *size < smallest) fail(key, kNoMemory);
    for (const auto& [device, bytes] : by_device) {
      if (bytes < smallest) fail(std::string(key) + "." + device, kNoMemory);
    }
  }
  void sampling_ranges(const SamplingParams& sampling) {
    try {
      sampling.validate();
    } catch (const UsageError& error) {
      throw ConfigError(source_ + ": " + prefix_ + error.what());
    }
  }

 private:
  template <typename Parse>
  void named(const char* key, const Parse& parse) {
    try {
      parse();
    } catch (const ConfigError& error) {
      fail(key, std::string("is refused: ") + error.what());
    }
  }
  [[noreturn]] void fail(const std::string& key, const std::string& what) {
    throw ConfigError(source_ + ": " + in_quotes(prefix_ + key) + " " + what);
  }

  std::string prefix_;
  const std::string& source_;
};

}  // namespace

void check_config_values(const Config& config) {
  Checker checker("", config.source);
  visit_config(checker, config);
}

void Config::validate() const {
  check_config_values(*this);
  if (speculation.prompt_lookup_min > speculation.prompt_lookup_max) {
    throw ConfigError(source + ": \"speculation.prompt_lookup_min\" (" +
                      std::to_string(speculation.prompt_lookup_min) +
                      ") exceeds \"prompt_lookup_max\" (" +
                      std::to_string(speculation.prompt_lookup_max) + ")");
  }
  if (speculation.method == "draft_model" && !draft) {
    throw ConfigError(
        source +
        ": \"speculation.method\" is \"draft_model\", but no draft model is given; name one in "
        "\"draft.model\", or set the method to \"ngram\" or \"none\"");
  }
  if (cpu_threads < 0) {
    throw ConfigError(source + ": the number of CPU threads is " + std::to_string(cpu_threads) +
                      "; expected 0 (every core) or more");
  }
}

}  // namespace tandem
