#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "cli/commands.h"
#include "core/size.h"

namespace tandem::cli {
namespace {

int devices(bool json) {
  const std::vector<DeviceInfo> all = list_devices();
  if (json) {
    auto list = nlohmann::ordered_json::array();
    for (const DeviceInfo& device : all) {
      list.push_back({{"device", to_string(device.id)},
                      {"name", device.name},
                      {"capacity_bytes", device.capacity_bytes},
                      {"free_bytes", device.free_bytes}});
    }
    std::cout << list.dump() << "\n";
    return 0;
  }
  std::printf("%-8s %12s %12s  %s\n", "device", "memory", "free", "name");
  for (const DeviceInfo& device : all) {
    std::printf("%-8s %12s %12s  %s\n", to_string(device.id).c_str(),
                format_size(device.capacity_bytes).c_str(), format_size(device.free_bytes).c_str(),
                device.name.c_str());
  }
  std::fflush(stdout);
  return 0;
}

}  // namespace

void add_devices(CLI::App& app, Command& command) {
  const auto json = std::make_shared<bool>(false);
  CLI::App* const sub = app.add_subcommand("devices", "List the devices that models can run on");
  sub->add_flag("--json", *json,
                "Print a list of objects: device, name, capacity_bytes, free_bytes");
  sub->footer(
      "Examples:\n"
      "  tandem devices\n"
      "  tandem devices --json");
  sub->callback([json, &command] { command = [json] { return devices(*json); }; });
}

}  // namespace tandem::cli
