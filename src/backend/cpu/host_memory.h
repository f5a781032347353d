#pragma once

#include <cstdint>
#include <filesystem>

namespace tandem {

/// Memory that this process may have, in bytes: the machine's, within the limits of the control
/// groups that hold the process (a container's, a systemd slice's).
struct HostMemory {
  uint64_t capacity_bytes = 0;
  uint64_t available_bytes = 0;  ///< could be had now without swapping
};

/// Reads it from /proc and from the memory controller's files, of version 2 and of version 1, in
/// the process's own group and in every group above it. What cannot be read sets no limit.
/// Thread-safe.
/// @param root what stands for "/"
HostMemory read_host_memory(const std::filesystem::path& root = "/");

}  // namespace tandem
