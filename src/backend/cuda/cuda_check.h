#pragma once

#include <cuda_runtime_api.h>

namespace tandem {

/// @throws DeviceError naming the call, the device and what to do, unless `status` is cudaSuccess
void check_cuda(cudaError_t status, const char* call, int device);

/// For destructors: a failure is logged.
void log_cuda(cudaError_t status, const char* call, int device) noexcept;

}  // namespace tandem
