#include <fstream>
#include <string>

#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cuda_devices.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// "AMD EPYC 9B45", where the system tells; else "CPU".
std::string processor_name() {
  constexpr std::string_view kKey = "model name";
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(kKey)) continue;
    const size_t value = line.find_first_not_of(" \t:", kKey.size());
    if (value != std::string::npos) return line.substr(value);
  }
  return "CPU";
}

DeviceInfo describe_host() {
  return {.id = DeviceId{},
          .name = processor_name() + ", " + std::to_string(available_cores()) + " cores, " +
                  std::string(name_of(best_isa())),
          .capacity_bytes = physical_memory_bytes(),
          .free_bytes = available_memory_bytes()};
}

}  // namespace

std::unique_ptr<Backend> make_backend(const DeviceSpec& device, int threads) {
  if (device.id.kind == DeviceKind::kCuda) {
    if (device.capacity_bytes) {
      throw UsageError(to_string(device.id) + ": only CPU devices can be given a memory size");
    }
    return make_cuda_backend(device.id);
  }
  return std::make_unique<CpuBackend>(
      device.id,
      CpuBackend::Options{
          .threads = threads, .capacity_bytes = device.capacity_bytes, .isa = std::nullopt});
}

std::vector<DeviceId> list_device_ids() {
  std::vector<DeviceId> ids = list_cuda_devices();
  ids.push_back(DeviceId{});
  return ids;
}

std::vector<DeviceInfo> describe_devices(std::span<const DeviceId> ids) {
  std::vector<DeviceInfo> devices;
  for (const DeviceId id : ids) {
    if (id.kind == DeviceKind::kCuda) {
      if (auto device = describe_cuda_device(id)) devices.push_back(std::move(*device));
    } else if (id == DeviceId{}) {
      devices.push_back(describe_host());
    }
  }
  return devices;
}

std::vector<DeviceInfo> list_devices() { return describe_devices(list_device_ids()); }

}  // namespace tandem
