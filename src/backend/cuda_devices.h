#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"

namespace tandem {

/// @throws UsageError when this build or machine has no such GPU
std::unique_ptr<Backend> make_cuda_backend(DeviceId device);

/// The machine's GPUs; empty without a driver or in a build without CUDA.
std::vector<DeviceInfo> list_cuda_devices();

}  // namespace tandem
