#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_check.h"
#include "backend/cuda_devices.h"

namespace tandem {

double measure_read_bandwidth(DeviceId device) {
  constexpr size_t kBytes = size_t{4} << 30, kSinkBytes = 256;
  constexpr int kWarmUps = 2, kSweeps = 9;
  CudaBackend backend(device);
  const auto stream = backend.make_stream();
  const auto begin = backend.make_event(), end = backend.make_event();
  const DeviceBuffer data(backend.memory(), kBytes, "measuring the read bandwidth");
  const DeviceBuffer sink(backend.memory(), kSinkBytes, "measuring the read bandwidth");
  int multiprocessors = 1;
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device.index),
             "cudaDeviceGetAttribute", device.index);
  const kernels::Launch launch{.stream = static_cast<CudaStream&>(*stream).handle(),
                               .multiprocessors = multiprocessors};
  backend.fill_zero(data.data(), kBytes, *stream);
  std::vector<double> seconds;
  for (int i = 0; i < kWarmUps + kSweeps; ++i) {
    stream->record(*begin);
    check_cuda(
        kernels::read_memory(data.data(), kBytes, static_cast<uint32_t*>(sink.data()), launch),
        "read_memory", device.index);
    stream->record(*end);
    end->wait();
    if (i >= kWarmUps) seconds.push_back(end->seconds_since(*begin));
  }
  std::nth_element(seconds.begin(), seconds.begin() + kSweeps / 2, seconds.end());
  return static_cast<double>(kBytes) / seconds[kSweeps / 2];
}

}  // namespace tandem
