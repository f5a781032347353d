#include <charconv>
#include <nlohmann/json.hpp>

#include "core/size.h"
#include "engine/config_fields.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

/// The decimal number with the fewest digits that reads back as this float.
double shortest_decimal(float value) {
  char text[32];
  const auto written = std::to_chars(std::begin(text), std::end(text), value);
  double wide = 0;
  std::from_chars(std::begin(text), written.ptr, wide);
  return wide;
}

/// "256MiB" where that is exact, else bytes.
ordered_json size_json(uint64_t bytes) {
  if (bytes == 0) return bytes;
  if (bytes % kGiB == 0) return std::to_string(bytes / kGiB) + "GiB";
  if (bytes % kMiB == 0) return std::to_string(bytes / kMiB) + "MiB";
  if (bytes % kKiB == 0) return std::to_string(bytes / kKiB) + "KiB";
  return bytes;
}
ordered_json size_json(const std::optional<uint64_t>& bytes) {
  return bytes ? size_json(*bytes) : ordered_json();
}

/// Visitor of `visit_config` that writes one object.
class Writer {
 public:
  explicit Writer(ordered_json& object) : object_(object) { object_ = ordered_json::object(); }

  template <typename Section, typename Visit>
  void section(const char* key, const Section& section, const Visit& visit) {
    Writer inner(object_[key]);
    visit(inner, section);
  }
  template <typename Section, typename Visit>
  void optional_section(const char* key, const std::optional<Section>& section,
                        const Visit& visit) {
    if (section) this->section(key, *section, visit);
  }

  void path(const char* key, const std::filesystem::path& path) { object_[key] = path.string(); }
  void optional_file(const char* key, const std::optional<std::filesystem::path>& file) {
    object_[key] = file ? ordered_json(file->string()) : ordered_json();
  }
  void devices(const char* key, const std::string& devices) { object_[key] = devices; }
  void device(const char* key, const std::string& device) { object_[key] = device; }
  void choice(const char* key, const std::string& choice, Choices) { object_[key] = choice; }
  void integer(const char* key, int integer, int = 0, int = 0) { object_[key] = integer; }
  void integer_or_auto(const char* key, const std::optional<int>& integer, int, int) {
    object_[key] = integer ? ordered_json(*integer) : ordered_json("auto");
  }
  void number(const char* key, float number) { object_[key] = shortest_decimal(number); }
  void boolean(const char* key, bool boolean) { object_[key] = boolean; }
  void seed(const char* key, const std::optional<uint64_t>& seed) {
    object_[key] = seed ? ordered_json(*seed) : ordered_json();
  }
  void texts(const char* key, const std::vector<std::string>& texts) { object_[key] = texts; }
  void size_by_device(const char* key, const std::optional<uint64_t>& size,
                      const std::map<std::string, uint64_t>& by_device, uint64_t) {
    if (by_device.empty()) {
      object_[key] = size_json(size);
      return;
    }
    ordered_json& sizes = object_[key] = ordered_json::object();
    if (const ordered_json others = size_json(size); !others.is_null()) {
      sizes[kOtherDevices] = others;
    }
    for (const auto& [device, bytes] : by_device) sizes[device] = size_json(bytes);
  }
  void sampling_ranges(const SamplingParams&) {}

 private:
  ordered_json& object_;
};

}  // namespace

std::string Config::to_json() const {
  constexpr int kIndent = 2;
  ordered_json document;
  Writer writer(document);
  visit_config(writer, *this);
  return document.dump(kIndent, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace tandem
