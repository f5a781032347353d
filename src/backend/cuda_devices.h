#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"

namespace tandem {

/// @throws UsageError when this build or machine has no such GPU
std::unique_ptr<Backend> make_cuda_backend(DeviceId device);

/// The machine's GPUs; empty without a driver or in a build without CUDA.
std::vector<DeviceInfo> list_cuda_devices();

/// Bytes that a GPU reads in a second at most: the median of several sweeps over memory far larger
/// than its caches. Takes 4 GiB of its memory for a moment. @throws as make_cuda_backend
double measure_read_bandwidth(DeviceId device);

}  // namespace tandem
