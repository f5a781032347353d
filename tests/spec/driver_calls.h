#pragma once

#include <cstdint>

namespace tandem::test {

/// Calls of the CUDA runtime so far in this program, which is linked so that they can be counted.
struct DriverCalls {
  int64_t allocations = 0;  ///< and releases, of device or page-locked memory, and graphs made
  int64_t event_waits = 0;  ///< of the host
  int64_t other_waits = 0;  ///< of the host, for a stream, the device or a blocking copy
  int64_t graph_launches = 0;
};
DriverCalls driver_calls();

}  // namespace tandem::test
