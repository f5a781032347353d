#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "backend/backend.h"

namespace tandem {

/// @throws UsageError when this build or machine has no such GPU
std::unique_ptr<Backend> make_cuda_backend(DeviceId device);

/// The machine's GPUs that this build's kernels run on, without making a driver context; empty
/// without a driver or in a build without CUDA.
std::vector<DeviceId> list_cuda_devices();

/// Makes a driver context there. Empty where `list_cuda_devices` does not list the GPU.
std::optional<DeviceInfo> describe_cuda_device(DeviceId device);

/// Bytes that a GPU reads in a second at most: the median of several sweeps over memory far larger
/// than its caches. Takes 4 GiB of its memory for a moment. @throws as make_cuda_backend
double measure_read_bandwidth(DeviceId device);

/// Seconds of one product out = x W^T of plain bfloat16 matrices through cuBLASLt, random numbers:
/// the median over runs that follow each other and go round several weights, so that no cache
/// holds them.
/// x (rows, inputs), W (outputs, inputs), out (rows, outputs) bfloat16. @throws as
/// make_cuda_backend
double measure_library_product(DeviceId device, int64_t rows, int64_t outputs, int64_t inputs);

}  // namespace tandem
