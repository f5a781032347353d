#include "engine/device_choice.h"

#include <algorithm>
#include <string_view>

#include "backend/backend.h"
#include "core/log.h"
#include "core/size.h"
#include "tandem/error.h"

namespace tandem {
namespace {

constexpr std::string_view kPlannedHardware = "planned";
/// What CPU devices without a size of their own take their memory from.
constexpr std::string_view kHostPool = "host";

/// What the specs stand for: devices that none of them names are left alone.
std::vector<DeviceInfo> infos_of(const std::vector<DeviceSpec>& specs) {
  std::vector<DeviceId> ids;
  for (const DeviceSpec& spec : specs) {
    const DeviceId id = spec.id.kind == DeviceKind::kCpu ? DeviceId{} : spec.id;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  return describe_devices(ids);
}

/// The listed device that a spec stands for; any CPU device stands for the host.
const DeviceInfo* find_info(const std::vector<DeviceInfo>& infos, DeviceId id) {
  const auto found = std::find_if(infos.begin(), infos.end(), [&](const DeviceInfo& info) {
    return info.id == id || (info.id.kind == DeviceKind::kCpu && id.kind == DeviceKind::kCpu);
  });
  return found == infos.end() ? nullptr : &*found;
}

/// "24GiB,24GiB" as GPUs; what is no size is a device as the configuration names it.
std::vector<DeviceSpec> parse_planned(const std::string& text) {
  std::vector<DeviceSpec> specs;
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    std::string item = text.substr(start, comma - start);
    std::erase(item, ' ');
    if (!item.empty() && item.front() >= '0' && item.front() <= '9') {
      specs.push_back({{DeviceKind::kCuda, static_cast<int>(specs.size())}, parse_size(item)});
    } else {
      specs.push_back(parse_device(item));
    }
    const auto same = [&](const DeviceSpec& other) { return other.id == specs.back().id; };
    if (std::count_if(specs.begin(), specs.end(), same) > 1) {
      throw ConfigError("--devices: " + to_string(specs.back().id) + " stands twice in '" + text +
                        "'");
    }
    if (!specs.back().capacity_bytes) {
      throw ConfigError("--devices: '" + item +
                        "' has no size; write \"24GiB,24GiB\", or \"cpu:0=64MiB\"");
    }
    start = comma + 1;
  }
  return specs;
}

std::vector<DeviceSpec> machine_devices() {
  const std::vector<DeviceId> ids = list_device_ids();
  std::vector<DeviceSpec> specs;
  for (const DeviceId id : ids) {
    if (id.kind == ids.front().kind) specs.push_back({id, std::nullopt});
  }
  return specs;
}

template <typename Value>
Value by_device(const std::map<std::string, uint64_t>& sizes, const std::string& device,
                Value otherwise) {
  const auto found = sizes.find(device);
  return found == sizes.end() ? otherwise : Value(found->second);
}

/// What a size by device is for must be a device of the plan. With devices to choose from, the same
/// configuration may serve several machines: a warning is enough.
void check_named_devices(const Config& config, const DeviceChoice& choice) {
  const auto check = [&](const char* key, const std::map<std::string, uint64_t>& sizes) {
    for (const auto& size : sizes) {
      const std::string& name = size.first;
      const auto is_named = [&](const DeviceSpec& spec) { return to_string(spec.id) == name; };
      if (std::any_of(choice.specs.begin(), choice.specs.end(), is_named)) continue;
      if (config.draft && config.draft->device != "auto" &&
          is_named(parse_device(config.draft->device))) {
        continue;  // for when the draft is used
      }
      const std::string message = config.source + ": \"memory." + key + "." + name +
                                  "\" has no effect: " + name + " is not among the plan's devices";
      if (!choice.choose_devices) throw ConfigError(message);
      log().warn(message);
    }
  };
  check("reserve", config.memory.reserve_bytes_by_device);
  check("limit", config.memory.limit_bytes_by_device);
}

}  // namespace

DeviceChoice choose_devices(const Config& config, const std::string& planned) {
  DeviceChoice choice;
  choice.here = planned.empty();
  choice.choose_devices = !choice.here || config.main.devices == "auto";
  choice.specs = !choice.here                    ? parse_planned(planned)
                 : config.main.devices == "auto" ? machine_devices()
                                                 : parse_device_list(config.main.devices);
  for (size_t index = 0; index < choice.specs.size(); ++index) choice.main_devices.push_back(index);

  const bool drafts = config.speculation.method == "draft_model" && config.draft;
  if (drafts && config.draft->device != "auto") {
    const DeviceSpec draft = parse_device(config.draft->device);
    const auto known = std::find_if(choice.specs.begin(), choice.specs.end(),
                                    [&](const DeviceSpec& spec) { return spec.id == draft.id; });
    if (known == choice.specs.end() && !choice.here) {
      throw ConfigError(config.source + ": \"draft.device\" is \"" + config.draft->device +
                        "\", which is not among the planned devices '" + planned + "'");
    }
    if (known != choice.specs.end() && draft.capacity_bytes &&
        draft.capacity_bytes != known->capacity_bytes) {
      throw ConfigError(config.source + ": \"draft.device\" is \"" + config.draft->device +
                        "\", but the main model's devices give " + to_string(draft.id) +
                        (known->capacity_bytes ? " " + format_size(*known->capacity_bytes)
                                               : std::string(" no size")) +
                        "; name its size once");
    }
    choice.draft_device = static_cast<size_t>(known - choice.specs.begin());
    if (known == choice.specs.end()) choice.specs.push_back(draft);
  }
  check_named_devices(config, choice);

  const std::vector<DeviceInfo> infos =
      choice.here ? infos_of(choice.specs) : std::vector<DeviceInfo>{};
  for (const DeviceSpec& spec : choice.specs) {
    const DeviceInfo* info = find_info(infos, spec.id);
    if (choice.here && info == nullptr) {
      throw ConfigError(config.source + ": this machine or build has no device " +
                        to_string(spec.id) + "; 'tandem devices' lists those it has");
    }
    choice.hardware.emplace_back(info == nullptr ? kPlannedHardware : std::string_view(info->name));
  }
  return choice;
}

std::vector<PlanDevice> survey_devices(const DeviceChoice& choice, const Config::Memory& memory,
                                       int processes) {
  const std::vector<DeviceInfo> infos =
      choice.here ? infos_of(choice.specs) : std::vector<DeviceInfo>{};
  const auto sharing_host = static_cast<uint64_t>(
      std::count_if(choice.specs.begin(), choice.specs.end(), [](const DeviceSpec& spec) {
        return spec.id.kind == DeviceKind::kCpu && !spec.capacity_bytes;
      }));
  std::vector<PlanDevice> devices;
  for (size_t index = 0; index < choice.specs.size(); ++index) {
    const DeviceSpec& spec = choice.specs[index];
    const std::string name = to_string(spec.id);
    PlanDevice device;
    device.id = spec.id;
    device.hardware = choice.hardware[index];
    if (spec.capacity_bytes) {
      device.capacity_bytes = device.free_bytes = *spec.capacity_bytes;
    } else if (const DeviceInfo* info = find_info(infos, spec.id)) {
      const bool host = spec.id.kind == DeviceKind::kCpu;
      const uint64_t parts = host ? sharing_host * static_cast<uint64_t>(processes) : 1;
      if (host) device.pool = kHostPool;
      device.capacity_bytes = info->capacity_bytes / parts;
      device.free_bytes = std::min(info->free_bytes, info->capacity_bytes) / parts;
      device.has_context = info->has_context;
    }
    const bool simulated = spec.id.kind == DeviceKind::kCpu && spec.capacity_bytes.has_value();
    const uint64_t by_default = simulated ? 0 : Config::Memory::kDefaultReserveBytes;
    device.reserve_bytes =
        by_device(memory.reserve_bytes_by_device, name, memory.reserve_bytes.value_or(by_default));
    device.limit_bytes = by_device(memory.limit_bytes_by_device, name, memory.limit_bytes);
    devices.push_back(std::move(device));
  }
  return devices;
}

}  // namespace tandem
