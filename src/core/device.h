#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

enum class DeviceKind : uint8_t { kCpu, kCuda };

/// Names one device: `cpu`, `cpu:1` (simulated devices share the host's memory), `cuda:0`.
struct DeviceId {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  auto operator<=>(const DeviceId&) const = default;
};

/// "cpu:0", "cuda:1".
std::string to_string(DeviceId device);

/// What a person writes for a device: an id and, for simulated CPU devices, a memory size.
struct DeviceSpec {
  DeviceId id;
  std::optional<uint64_t> capacity_bytes;
  auto operator<=>(const DeviceSpec&) const = default;
};

/// Parses "cpu", "cpu:1=64MiB", "cuda:0". @throws ConfigError naming the text and the accepted
/// forms.
DeviceSpec parse_device(std::string_view text);

/// Parses a comma-separated list of devices; refuses duplicates.
std::vector<DeviceSpec> parse_device_list(std::string_view text);

}  // namespace tandem
