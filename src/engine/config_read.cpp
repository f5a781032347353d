#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/device.h"
#include "core/mapped_file.h"
#include "core/size.h"
#include "core/text.h"
#include "engine/config_fields.h"
#include "engine/strict_json.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = 1 << 20;

/// Relative to the configuration's folder where that exists, else to the working directory.
fs::path resolve_path(const fs::path& path, const fs::path& folder) {
  std::error_code ignored;
  const fs::path beside = (folder / path).lexically_normal();
  return path.is_relative() && fs::exists(beside, ignored) ? beside : path;
}

/// Visitor of `visit_config` that fills one object of the configuration from JSON. Checks types;
/// `check_config_values` looks at the values.
class Reader {
 public:
  Reader(const json& object, std::string prefix, const std::string& source, const fs::path& folder)
      : object_(object), prefix_(std::move(prefix)), source_(source), folder_(folder) {}

  template <typename Section, typename Visit>
  void section(const char* key, Section& section, const Visit& visit) {
    if (const json* value = find(key)) read_section(key, *value, section, visit);
  }
  template <typename Section, typename Visit>
  void optional_section(const char* key, std::optional<Section>& section, const Visit& visit) {
    const json* value = find(key);
    if (value == nullptr || value->is_null()) return;
    read_section(key, *value, section.emplace(), visit);
  }

  void path(const char* key, fs::path& path) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_string()) wrong_type(key, *value, "the folder of a model (a string)");
    path = resolve_path(value->get<std::string>(), folder_);
  }
  void optional_file(const char* key, std::optional<fs::path>& file) {
    const json* value = find(key);
    if (value == nullptr) return;
    file.reset();
    if (value->is_null()) return;
    if (!value->is_string()) wrong_type(key, *value, "null or a file (a string)");
    file = resolve_path(value->get<std::string>(), folder_);
  }
  void devices(const char* key, std::string& devices) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (value->is_array()) {
      std::string joined;
      for (const json& item : *value) {
        if (!item.is_string()) wrong_type(key, item, "a list of device names (strings)");
        joined += (joined.empty() ? "" : ",") + item.get<std::string>();
      }
      devices = joined;
    } else if (value->is_string()) {
      devices = value->get<std::string>();
    } else {
      wrong_type(key, *value, "\"auto\", a device, or a list of devices");
    }
  }
  void device(const char* key, std::string& device) {
    text(key, device, "\"auto\" or a device (a string)");
  }
  void choice(const char* key, std::string& choice, Choices) { text(key, choice, "a string"); }
  void integer(const char* key, int& integer, int low = std::numeric_limits<int>::min(),
               int high = std::numeric_limits<int>::max()) {
    if (const json* value = find(key)) integer = to_int(key, *value, low, high, "");
  }
  void integer_or_auto(const char* key, std::optional<int>& integer, int low, int high) {
    const json* value = find(key);
    if (value == nullptr) return;
    integer.reset();
    if (*value != "auto") integer = to_int(key, *value, low, high, "\"auto\" or ");
  }
  void number(const char* key, float& number) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_number()) wrong_type(key, *value, "a number");
    const double wide = value->get<double>();
    if (std::abs(wide) > static_cast<double>(std::numeric_limits<float>::max())) {
      wrong_type(key, *value, "a number of ordinary size");
    }
    number = static_cast<float>(wide);
  }
  void boolean(const char* key, bool& boolean) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_boolean()) wrong_type(key, *value, "true or false");
    boolean = value->get<bool>();
  }
  void seed(const char* key, std::optional<uint64_t>& seed) {
    const json* value = find(key);
    if (value == nullptr) return;
    seed.reset();
    if (value->is_null()) return;
    if (!value->is_number_unsigned()) {
      wrong_type(key, *value, "null or an integer from 0 to 18446744073709551615");
    }
    seed = value->get<uint64_t>();
  }
  void texts(const char* key, std::vector<std::string>& texts) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_array()) wrong_type(key, *value, "a list of strings");
    texts.clear();
    for (const json& item : *value) {
      if (!item.is_string()) wrong_type(key, item, "a list of strings");
      texts.push_back(item.get<std::string>());
    }
  }
  void size_by_device(const char* key, std::optional<uint64_t>& size,
                      std::map<std::string, uint64_t>& by_device, uint64_t) {
    const json* value = find(key);
    if (value == nullptr) return;
    by_device.clear();
    size.reset();
    if (value->is_null()) return;
    if (!value->is_object()) {
      size = to_size(key, *value);
      return;
    }
    for (const auto& [name, item] : value->items()) {
      const std::string item_key = std::string(key) + "." + name;
      if (name == kOtherDevices) {
        size = to_size(item_key, item);
        continue;
      }
      if (!by_device.emplace(to_device_name(item_key, name), to_size(item_key, item)).second) {
        fail(key, "names the device '" + name + "' twice");
      }
    }
  }
  void sampling_ranges(const SamplingParams&) {}

  /// A note for editors that tandem does not need.
  void ignored_text(const char* key) {
    std::string text_of_editor;
    text(key, text_of_editor, "a string");
  }
  /// @throws ConfigError when the object holds a key that nobody asked for
  void refuse_other_keys() const {
    for (const auto& item : object_.items()) {
      if (std::find(known_.begin(), known_.end(), item.key()) != known_.end()) continue;
      throw ConfigError(source_ + ": unknown key " + brief(prefix_ + item.key()) +
                        "; the nearest known key is \"" + prefix_ + nearest(item.key(), known_) +
                        "\"");
    }
  }

 private:
  const json* find(const char* key) {
    known_.emplace_back(key);
    const auto item = object_.find(key);
    return item == object_.end() ? nullptr : &*item;
  }
  template <typename Section, typename Visit>
  void read_section(const char* key, const json& value, Section& section, const Visit& visit) {
    if (!value.is_object()) wrong_type(key, value, "an object");
    Reader inner(value, prefix_ + key + ".", source_, folder_);
    visit(inner, section);
    inner.refuse_other_keys();
  }
  void text(const char* key, std::string& text, const std::string& expected) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_string()) wrong_type(key, *value, expected);
    text = value->get<std::string>();
  }
  int to_int(const char* key, const json& value, int low, int high, const std::string& or_what) {
    const std::string expected =
        or_what + "an integer from " + std::to_string(low) + " to " + std::to_string(high);
    if (!value.is_number_integer()) wrong_type(key, value, expected);
    const bool fits = value.is_number_unsigned()
                          ? value.get<uint64_t>() <= static_cast<uint64_t>(std::max(high, 0))
                          : value.get<int64_t>() >= low;
    if (!fits) fail(key, "is " + brief(value) + "; expected " + expected);
    return value.get<int>();
  }
  uint64_t to_size(const std::string& key, const json& value) {
    if (value.is_number_unsigned()) return value.get<uint64_t>();
    if (!value.is_string()) wrong_type(key, value, "a size: bytes, or a string such as \"512MiB\"");
    try {
      return parse_size(value.get_ref<const std::string&>());
    } catch (const ConfigError& error) {
      fail(key, error.what());
    }
  }
  std::string to_device_name(const std::string& key, const std::string& name) {
    try {
      const DeviceSpec spec = parse_device(name);
      if (spec.capacity_bytes) fail(key, "must name a device without its size");
      return to_string(spec.id);
    } catch (const ConfigError& error) {
      fail(key, error.what());
    }
  }
  [[noreturn]] void wrong_type(const std::string& key, const json& value,
                               const std::string& expected) {
    fail(key, "is " + brief(value) + " (" + std::string(describe_type(value)) + "); expected " +
                  expected);
  }
  [[noreturn]] void fail(const std::string& key, const std::string& what) {
    throw ConfigError(source_ + ": " + brief(prefix_ + key) + " " + what);
  }

  const json& object_;
  std::string prefix_;
  const std::string& source_;
  const fs::path& folder_;
  std::vector<std::string> known_;
};

}  // namespace

Config Config::from_json(std::string_view text, const fs::path& folder, std::string_view name) {
  const json document = parse_strict_json(text, name);
  Config config;
  config.source = name;
  if (!document.is_object()) {
    throw ConfigError(config.source + ": holds " + std::string(describe_type(document)) +
                      "; expected an object");
  }
  Reader reader(document, "", config.source, folder);
  reader.ignored_text("$schema");
  visit_config(reader, config);
  reader.refuse_other_keys();
  check_config_values(config);
  return config;
}

Config Config::from_file(const fs::path& path) {
  std::string text;
  try {
    text = read_text_file(path, kMaxConfigBytes);
  } catch (const ModelError& error) {
    throw ConfigError(error.what());
  }
  return from_json(text, path.parent_path(), path.string());
}

}  // namespace tandem
