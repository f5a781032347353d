#include "backend/cuda/cuda_backend.h"

#include <cuda_runtime_api.h>

#include "backend/cuda/cuda_check.h"
#include "backend/cuda/library_matmul.h"
#include "backend/cuda_devices.h"
#include "core/size.h"
#include "kernels/capability.h"
#include "tandem/error.h"

namespace tandem {
namespace {

constexpr int kOldestCapability = 80;

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    (void)cudaGetLastError();  // no driver: no devices
    return 0;
  }
  return count;
}

/// Of a GPU that the kernels run on.
std::optional<cudaDeviceProp> properties_of(int index) {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) {
    (void)cudaGetLastError();
    return std::nullopt;
  }
  if (properties.major * 10 + properties.minor < kOldestCapability) return std::nullopt;
  return properties;
}

std::string text_of(int major, int minor) {
  return std::to_string(major) + "." + std::to_string(minor);
}

}  // namespace

CudaBackend::CudaBackend(DeviceId device) : device_(device), memory_(device) {
  const int count = device_count();
  if (device.index < 0 || device.index >= count) {
    throw UsageError(to_string(device) + ": this machine has " + std::to_string(count) +
                     " usable GPUs; `tandem devices` lists them");
  }
  use_device();
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device.index), "cudaGetDeviceProperties");
  multiprocessors_ = properties.multiProcessorCount;
  if (properties.major * 10 + properties.minor < kOldestCapability) {
    throw UsageError(to_string(device) + ": " + properties.name + " has compute capability " +
                     text_of(properties.major, properties.minor) + "; tandem needs 8.0 or newer");
  }
  check(kernels::compiled_capability(&capability_), "cudaFuncGetAttributes");
  block_shared_bytes_ = static_cast<int>(properties.sharedMemPerBlockOptin);
  const int needed = kernels::matmul_rows_shared_bytes(capability_);
  if (needed > block_shared_bytes_) {
    throw UsageError(
        to_string(device) + ": this build's kernels for compute capability " +
        text_of(capability_ / 10, capability_ % 10) + " need " +
        format_size(static_cast<uint64_t>(needed)) + " of shared memory for a block, " +
        properties.name + " has " + format_size(properties.sharedMemPerBlockOptin) +
        "; rebuild with -DCMAKE_CUDA_ARCHITECTURES=" + std::to_string(properties.major) +
        std::to_string(properties.minor));
  }
  description_ = to_string(device) + ", " + properties.name + ", " +
                 std::to_string(multiprocessors_) + " multiprocessors, " +
                 format_size(properties.totalGlobalMem);
}

CudaBackend::~CudaBackend() = default;

void CudaBackend::use_device() const { check(cudaSetDevice(device_.index), "cudaSetDevice"); }

void CudaBackend::check(cudaError_t status, const char* call) const {
  check_cuda(status, call, device_.index);
}

kernels::Launch CudaBackend::launch(Stream& stream) {
  use_device();
  auto& target = static_cast<CudaStream&>(stream);
  return {.stream = target.handle(),
          .multiprocessors = multiprocessors_,
          .capability = capability_,
          .block_shared_bytes = block_shared_bytes_,
          .overlap = target.take_overlap() && kernels::can_overlap(capability_)};
}

std::unique_ptr<Stream> CudaBackend::make_stream() {
  use_device();
  return std::make_unique<CudaStream>(memory_);
}

std::unique_ptr<Event> CudaBackend::make_event() {
  use_device();
  return std::make_unique<CudaEvent>(device_.index);
}

std::unique_ptr<Graph> CudaBackend::capture(Stream& stream, const std::function<void()>& work) {
  use_device();
  auto& target = static_cast<CudaStream&>(stream);
  target.forbid_overlap();
  // Relaxed: scratch memory may have to grow while the work is captured.
  check(cudaStreamBeginCapture(target.handle(), cudaStreamCaptureModeRelaxed),
        "cudaStreamBeginCapture");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    (void)cudaStreamEndCapture(target.handle(), &graph);
    if (graph != nullptr) log_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy", device_.index);
    (void)cudaGetLastError();
    target.forbid_overlap();
    throw;
  }
  check(cudaStreamEndCapture(target.handle(), &graph), "cudaStreamEndCapture");
  target.forbid_overlap();
  return std::make_unique<CudaGraph>(device_.index, graph);
}

HostBuffer CudaBackend::make_host_buffer(size_t bytes) {
  use_device();
  void* data = nullptr;
  const cudaError_t status = cudaHostAlloc(&data, bytes, cudaHostAllocPortable);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    throw MemoryError(to_string(device_) + ": the host has no " + format_size(bytes) +
                      " of page-locked memory left; `ulimit -l` may limit it");
  }
  check(status, "cudaHostAlloc");
  return {data, bytes, [](void* memory) noexcept {
            int device = 0;
            (void)cudaGetDevice(&device);
            log_cuda(cudaFreeHost(memory), "cudaFreeHost", device);
          }};
}

void CudaBackend::copy_to_device(void* device, const void* host, size_t bytes, Stream& stream) {
  use_device();
  auto& target = static_cast<CudaStream&>(stream);
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, target.handle()),
        "cudaMemcpyAsync to the device");
  target.forbid_overlap();
}

void CudaBackend::copy_to_host(void* host, const void* device, size_t bytes, Stream& stream) {
  use_device();
  auto& target = static_cast<CudaStream&>(stream);
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, target.handle()),
        "cudaMemcpyAsync to the host");
  target.forbid_overlap();
}

void CudaBackend::copy(void* to, const void* from, size_t bytes, Stream& stream) {
  use_device();
  auto& target = static_cast<CudaStream&>(stream);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, target.handle()),
        "cudaMemcpyAsync on the device");
  target.forbid_overlap();
}

void CudaBackend::fill_zero(void* data, size_t bytes, Stream& stream) {
  use_device();
  auto& target = static_cast<CudaStream&>(stream);
  check(cudaMemsetAsync(data, 0, bytes, target.handle()), "cudaMemsetAsync");
  target.forbid_overlap();
}

std::unique_ptr<Backend> make_cuda_backend(DeviceId device) {
  return std::make_unique<CudaBackend>(device);
}

std::vector<DeviceId> list_cuda_devices() {
  std::vector<DeviceId> devices;
  const int count = device_count();
  for (int index = 0; index < count; ++index) {
    if (properties_of(index)) devices.push_back({DeviceKind::kCuda, index});
  }
  return devices;
}

std::optional<DeviceInfo> describe_cuda_device(DeviceId device) {
  if (device.index < 0 || device.index >= device_count()) return std::nullopt;
  const std::optional<cudaDeviceProp> properties = properties_of(device.index);
  if (!properties) return std::nullopt;
  return DeviceInfo{.id = device,
                    .name = properties->name,
                    .capacity_bytes = properties->totalGlobalMem,
                    .free_bytes = CudaMemory(device).free_bytes(),
                    .has_context = true};
}

}  // namespace tandem
