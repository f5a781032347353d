#include "common.cuh"

namespace tandem::kernels {
namespace {

// Reads memory once and nothing else: what a device can read in a second at most.

constexpr int kReadThreads = 256, kReadBlocks = 8, kUnroll = 8;

__global__ __launch_bounds__(kReadThreads) void read_kernel(const uint4* data, int64_t count,
                                                            uint32_t* sink) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kReadThreads;
  uint32_t mixed = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kReadThreads + threadIdx.x;
       i + (kUnroll - 1) * step < count; i += kUnroll * step) {
    uint4 v[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) v[k] = __ldcs(data + i + k * step);
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) mixed ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  if (mixed == 0x9e3779b9u) *sink = mixed;  // so that the reads are not optimised away
}

}  // namespace

cudaError_t read_memory(const void* data, int64_t bytes, uint32_t* sink, Launch launch) {
  return launch_kernel(
      read_kernel, dim3(static_cast<unsigned>(launch.multiprocessors * kReadBlocks)),
      dim3(kReadThreads), 0, launch, static_cast<const uint4*>(data), bytes / 16, sink);
}

}  // namespace tandem::kernels
