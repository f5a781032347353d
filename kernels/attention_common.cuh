#pragma once

#include <type_traits>

#include "common.cuh"

namespace tandem::kernels {

/// Calls run(std::integral_constant<int, D>) for the head sizes that the kernels are built for.
template <typename Run>
cudaError_t for_head_dim(int head_dim, Run&& run) {
  switch (head_dim) {
    case 32:
      return run(std::integral_constant<int, 32>());
    case 64:
      return run(std::integral_constant<int, 64>());
    case 96:
      return run(std::integral_constant<int, 96>());
    case 128:
      return run(std::integral_constant<int, 128>());
    case 256:
      return run(std::integral_constant<int, 256>());
    default:
      return cudaErrorInvalidValue;
  }
}

/// Launches a kernel that runs between the matmuls of few rows. It asks for the division of a
/// multiprocessor's memory that they have: another one could only be set when the multiprocessor is
/// empty, and would keep the second matmul from starting on it while the first one works.
template <typename... Params, typename... Args>
cudaError_t launch_between_matmuls(void (*kernel)(Params...), dim3 grid, dim3 block,
                                   size_t shared_bytes, const Launch& launch, Args... args) {
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, grid, block, shared_bytes, launch, args...);
}

/// Row of a slot's key or value of one kv head, in the cache as (rows, head_dim).
__device__ __forceinline__ int cache_row(const CacheArgs& cache, int sequence, int kv_head,
                                         int slot) {
  const int page =
      cache.page_table[static_cast<int64_t>(sequence) * cache.max_pages + slot / cache.page_tokens];
  return (page * cache.kv_heads + kv_head) * cache.page_tokens + slot % cache.page_tokens;
}
/// … and the offset of its first element.
__device__ __forceinline__ int64_t cache_offset(const CacheArgs& cache, int sequence, int kv_head,
                                                int slot) {
  return static_cast<int64_t>(cache_row(cache, sequence, kv_head, slot)) * cache.head_dim;
}

/// Four 8x8 matrices of 16-bit elements from shared memory, transposed: lane l names a row.
__device__ __forceinline__ void load_transposed(uint32_t (&m)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(shared_address(row))
               : "memory");
}

/// o (16 x D) += p (16 x 8 kTiles slots) v, v in shared memory by slots, `pitch` elements apart.
template <int kHeadDim, int kTiles>
__device__ __forceinline__ void multiply_values(float (&o)[kHeadDim / 8][4],
                                                const float (&p)[kTiles][4], const __nv_bfloat16* v,
                                                int pitch, int lane) {
#pragma unroll
  for (int j = 0; j < kTiles; j += 2) {
    const uint32_t a[4] = {pack_bf16(p[j][0], p[j][1]), pack_bf16(p[j][2], p[j][3]),
                           pack_bf16(p[j + 1][0], p[j + 1][1]),
                           pack_bf16(p[j + 1][2], p[j + 1][3])};
#pragma unroll
    for (int d = 0; d < kHeadDim / 8; d += 2) {
      uint32_t m[4];  // slots 0-7 and 8-15 of dims 8 d …, then of dims 8 d + 8 …
      load_transposed(m, v + (j * 8 + lane % 16) * pitch + d * 8 + lane / 16 * 8);
      mma_bf16(o[d], a, m[0], m[1]);
      mma_bf16(o[d + 1], a, m[2], m[3]);
    }
  }
}

// The ops on a head's pairs, elements i and i + head_dim / 2. Written with explicit roundings: the
// kernels that share them must agree bit for bit.
__device__ __forceinline__ float add_squares(float sum, float low, float high) {
  return __fmaf_rn(low, low, __fmaf_rn(high, high, sum));
}
/// 1 / RMS of a head, from each lane's share of the sum of squares.
__device__ __forceinline__ float head_norm_factor(float squares, int head_dim, float eps) {
  return 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(head_dim) + eps);
}
__device__ __forceinline__ void rotate_pair(float& low, float& high, float cosine, float sine) {
  const float rotated = __fmaf_rn(low, cosine, -__fmul_rn(high, sine));
  high = __fmaf_rn(high, cosine, __fmul_rn(low, sine));
  low = rotated;
}

/// Largest and sum over the four lanes that share an accumulator row.
__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

constexpr float kLog2E = 1.4426950408889634f;

}  // namespace tandem::kernels
