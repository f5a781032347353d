#include "common.cuh"

namespace tandem::kernels {
namespace {

__global__ void any_kernel() {}

}  // namespace

cudaError_t compiled_capability(int* capability) {
  cudaFuncAttributes attributes = {};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, any_kernel);
  if (error == cudaSuccess) *capability = attributes.ptxVersion;
  return error;
}

}  // namespace tandem::kernels
