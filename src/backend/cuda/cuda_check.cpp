#include "backend/cuda/cuda_check.h"

#include <string>

#include "core/log.h"
#include "tandem/error.h"

namespace tandem {
namespace {

const char* remedy(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return "free memory on the device, or lower max_model_len or memory.limit";
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
      return "check the driver with nvidia-smi, or use device 'cpu'";
    case cudaErrorNoKernelImageForDevice:
      return "rebuild with -DCMAKE_CUDA_ARCHITECTURES set to this device's";
    case cudaErrorInvalidDevice:
      return "`tandem devices` lists what this machine has";
    default:
      return "the device may be unusable for this process from here on: restart it, and look at "
             "nvidia-smi and the kernel log if that does not help";
  }
}

std::string message(cudaError_t status, const char* call, int device) {
  return "cuda:" + std::to_string(device) + ": " + call + " failed: " + cudaGetErrorString(status) +
         " (" + cudaGetErrorName(status) + "); " + remedy(status);
}

}  // namespace

void check_cuda(cudaError_t status, const char* call, int device) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // a failed launch must not be blamed on the next call
  throw DeviceError(message(status, call, device));
}

void log_cuda(cudaError_t status, const char* call, int device) noexcept {
  if (status == cudaSuccess) return;
  try {
    log().error("{}", message(status, call, device));
  } catch (...) {  // nothing is left to tell it to
  }
}

}  // namespace tandem
