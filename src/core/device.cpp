#include "core/device.h"

#include <algorithm>
#include <charconv>

#include "core/size.h"
#include "tandem/error.h"

namespace tandem {
namespace {

constexpr int kMaxDeviceIndex = 1023;

[[noreturn]] void refuse(std::string_view text, std::string_view why) {
  throw ConfigError("device '" + std::string(text) + "': " + std::string(why) +
                    "; write 'cpu', 'cuda:0', or 'cpu:1=64MiB' for a simulated device");
}

}  // namespace

std::string to_string(DeviceId device) {
  return (device.kind == DeviceKind::kCpu ? "cpu:" : "cuda:") + std::to_string(device.index);
}

DeviceSpec parse_device(std::string_view text) {
  DeviceSpec spec;
  std::string_view name = text;
  if (const size_t equals = name.find('='); equals != std::string_view::npos) {
    spec.capacity_bytes = parse_size(name.substr(equals + 1));
    name = name.substr(0, equals);
  }
  std::string_view index;
  if (const size_t colon = name.find(':'); colon != std::string_view::npos) {
    index = name.substr(colon + 1);
    name = name.substr(0, colon);
    if (index.empty()) refuse(text, "the number after ':' is missing");
  }
  if (name == "cpu") {
    spec.id.kind = DeviceKind::kCpu;
  } else if (name == "cuda") {
    spec.id.kind = DeviceKind::kCuda;
    if (spec.capacity_bytes) refuse(text, "only simulated CPU devices take a size");
  } else {
    refuse(text, "unknown kind of device");
  }
  if (!index.empty()) {
    const auto [end, error] =
        std::from_chars(index.data(), index.data() + index.size(), spec.id.index);
    if (error != std::errc() || end != index.data() + index.size() || spec.id.index < 0 ||
        spec.id.index > kMaxDeviceIndex) {
      refuse(text, "'" + std::string(index) + "' is no device number");
    }
  }
  return spec;
}

std::vector<DeviceSpec> parse_device_list(std::string_view text) {
  std::vector<DeviceSpec> devices;
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    std::string_view item = text.substr(start, comma - start);
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
    const DeviceSpec spec = parse_device(item);
    const bool repeated = std::any_of(devices.begin(), devices.end(),
                                      [&](const DeviceSpec& other) { return other.id == spec.id; });
    if (repeated) refuse(text, to_string(spec.id) + " stands twice in the list");
    devices.push_back(spec);
    start = comma + 1;
  }
  return devices;
}

}  // namespace tandem
