#pragma once

#include <type_traits>

#include "common.cuh"

namespace tandem::kernels {

/// Calls run(std::integral_constant<int, D>) for the head sizes of kAttentionHeadDims.
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
cudaError_t launch_clusters_between_matmuls(void (*kernel)(Params...), dim3 grid, dim3 block,
                                            size_t shared_bytes, const Launch& launch, int cluster,
                                            Args... args) {
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  if (error != cudaSuccess) return error;
  return launch_clustered(kernel, grid, block, shared_bytes, launch, cluster, args...);
}

template <typename... Params, typename... Args>
cudaError_t launch_between_matmuls(void (*kernel)(Params...), dim3 grid, dim3 block,
                                   size_t shared_bytes, const Launch& launch, Args... args) {
  return launch_clusters_between_matmuls(kernel, grid, block, shared_bytes, launch, 1, args...);
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

/// 1 / RMS of a head, from the sum of its squares.
__device__ __forceinline__ float head_norm_factor(float squares, int head_dim, float eps) {
  return 1.0f / sqrtf(squares / static_cast<float>(head_dim) + eps);
}

/// Four pairs of a head: elements 4 unit … 4 unit + 3, and as many from `half` of it on. Written
/// with explicit roundings: the kernels that share it must agree bit for bit.
struct PairUnit {
  float low[4], high[4];

  __device__ __forceinline__ PairUnit(const __nv_bfloat16* head, int half, int unit) {
    unpack(head, unit, low);
    unpack(head + half, unit, high);
  }
  __device__ __forceinline__ float squares() const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum = __fmaf_rn(low[i], low[i], __fmaf_rn(high[i], high[i], sum));
    }
    return sum;
  }
  __device__ __forceinline__ void normalize(float factor, const float* weight, int half, int unit) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      low[i] = __fmul_rn(__fmul_rn(low[i], factor), weight[4 * unit + i]);
      high[i] = __fmul_rn(__fmul_rn(high[i], factor), weight[half + 4 * unit + i]);
    }
  }
  /// @param angles the row's cosines, then sines
  __device__ __forceinline__ void rotate(const float* angles, int half, int unit) {
    const float4 c = __ldcg(reinterpret_cast<const float4*>(angles) + unit);
    const float4 s = __ldcg(reinterpret_cast<const float4*>(angles + half) + unit);
    const float cosines[4] = {c.x, c.y, c.z, c.w}, sines[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float rotated = __fmaf_rn(low[i], cosines[i], -__fmul_rn(high[i], sines[i]));
      high[i] = __fmaf_rn(high[i], cosines[i], __fmul_rn(low[i], sines[i]));
      low[i] = rotated;
    }
  }
  __device__ __forceinline__ void store(__nv_bfloat16* head, int half, int unit) const {
    reinterpret_cast<uint2*>(head)[unit] = {pack_bf16(low[0], low[1]), pack_bf16(low[2], low[3])};
    reinterpret_cast<uint2*>(head + half)[unit] = {pack_bf16(high[0], high[1]),
                                                   pack_bf16(high[2], high[3])};
  }

 private:
  __device__ __forceinline__ static void unpack(const __nv_bfloat16* elements, int unit,
                                                float (&to)[4]) {
    const uint2 pairs = __ldcg(reinterpret_cast<const uint2*>(elements) + unit);
    const float2 first = unpack_bf16(pairs.x), second = unpack_bf16(pairs.y);
    to[0] = first.x, to[1] = first.y, to[2] = second.x, to[3] = second.y;
  }
};

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
