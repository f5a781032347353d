#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/device.h"
#include "plan/planner.h"
#include "tandem/config.h"

namespace tandem {

/// The devices that a configuration names, or may choose from.
struct DeviceChoice {
  std::vector<DeviceSpec> specs;
  std::vector<std::string> hardware;   ///< of each
  std::vector<size_t> main_devices;    ///< indices into `specs`
  bool choose_devices = false;         ///< "main.devices" is "auto": the fewest of these
  std::optional<size_t> draft_device;  ///< index; none: "auto"
  bool here = true;                    ///< false: a machine described by sizes, which nobody uses
};

/// What "main.devices" and "draft.device" say. "auto" means the machine's GPUs, or without any its
/// CPU.
/// @param planned devices of a machine that one does not sit at, "24GiB,24GiB": sizes stand for
/// GPUs; simulated devices as
///        in the configuration may stand there too. They take the place of "main.devices". Empty:
///        this machine
/// @throws ConfigError for a device that is not there, that gets two sizes, or that only
/// "memory.reserve" or "memory.limit" names (a warning where devices are chosen)
DeviceChoice choose_devices(const Config& config, const std::string& planned = {});

/// Looks at the devices' memory now, and notes reserve and limit. CPU devices without a size of
/// their own get equal parts of the host's memory. The default reserve is meant for what else runs
/// on a device: simulated devices have none of it.
/// @param processes that look at the same host at this moment, and share its memory
std::vector<PlanDevice> survey_devices(const DeviceChoice& choice, const Config::Memory& memory,
                                       int processes = 1);

}  // namespace tandem
