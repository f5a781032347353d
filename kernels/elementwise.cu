#include "attention_common.cuh"
#include "weight_formats.cuh"

namespace tandem::kernels {
namespace {

// The small ops of a forward. Bound: launch latency for a few rows, bytes of the rows for many.

constexpr int kNormThreads = 512;
constexpr int kNormValues = 4;  // float4 a thread keeps in registers; longer rows are read twice

/// Sum over the block, in an order that depends on the block's size alone.
__device__ float block_sum(float value) {
  __shared__ float parts[kNormThreads / kWarpLanes];
  value = warp_sum(value);
  if (threadIdx.x % kWarpLanes == 0) parts[threadIdx.x / kWarpLanes] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kNormThreads / kWarpLanes; ++w) sum += parts[w];
  return sum;
}

/// A block for each row.
__global__ __launch_bounds__(kNormThreads) void rms_norm_kernel(const float* x, const float* weight,
                                                                float eps, int64_t cols, void* out,
                                                                Element out_type) {
  wait_for_earlier_work();
  let_next_kernel_start();
  const float* row = x + blockIdx.x * cols;
  const bool aligned = cols % 4 == 0;
  const int64_t quads = aligned ? cols / 4 : 0;
  float4 kept[kNormValues];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kNormValues; ++i) {
    const int64_t at = threadIdx.x + static_cast<int64_t>(i) * kNormThreads;
    if (at < quads) {
      kept[i] = reinterpret_cast<const float4*>(row)[at];
      squares += kept[i].x * kept[i].x + kept[i].y * kept[i].y + kept[i].z * kept[i].z +
                 kept[i].w * kept[i].w;
    }
  }
  constexpr int64_t kKept = kNormValues * kNormThreads * 4;
  for (int64_t at = (aligned ? kKept : 0) + threadIdx.x; at < cols; at += kNormThreads) {
    squares += row[at] * row[at];
  }
  const float factor = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(cols) + eps);
  const auto store = [&](int64_t at, float value) {
    if (out_type == Element::kF32) {
      static_cast<float*>(out)[blockIdx.x * cols + at] = value;
    } else {
      static_cast<__nv_bfloat16*>(out)[blockIdx.x * cols + at] = __float2bfloat16_rn(value);
    }
  };
#pragma unroll
  for (int i = 0; i < kNormValues; ++i) {
    const int64_t at = threadIdx.x + static_cast<int64_t>(i) * kNormThreads;
    if (at < quads) {
      const float4 w = reinterpret_cast<const float4*>(weight)[at];
      const float4 v = {kept[i].x * factor * w.x, kept[i].y * factor * w.y,
                        kept[i].z * factor * w.z, kept[i].w * factor * w.w};
      if (out_type == Element::kBF16) {
        auto* to = static_cast<__nv_bfloat16*>(out) + blockIdx.x * cols;
        reinterpret_cast<uint2*>(to)[at] = {pack_bf16(v.x, v.y), pack_bf16(v.z, v.w)};
      } else {
        reinterpret_cast<float4*>(static_cast<float*>(out) + blockIdx.x * cols)[at] = v;
      }
    }
  }
  for (int64_t at = (aligned ? kKept : 0) + threadIdx.x; at < cols; at += kNormThreads) {
    store(at, row[at] * factor * weight[at]);
  }
}

/// A block for each row of the pass.
template <Packed kFormat>
__global__ void embed_kernel(const int32_t* tokens, const unsigned char* panels,
                             const float* scales, int64_t first_row, int64_t vocab, int64_t cols,
                             float* hidden) {
  wait_for_earlier_work();
  let_next_kernel_start();
  const int64_t token = tokens[blockIdx.x] - first_row;
  const bool known = token >= 0 && token < vocab;
  const unsigned char* panel =
      panels + (known ? token / kPanelOutputs : 0) * panel_bytes(kFormat, cols);
  const float scale = kFormat == Packed::kFp8 && known ? scales[token] : 1.0f;
  for (int64_t i = threadIdx.x; i < cols; i += blockDim.x) {
    hidden[blockIdx.x * cols + i] =
        known ? weight_at<kFormat>(panel, static_cast<int>(token % kPanelOutputs), i) * scale
              : 0.0f;
  }
}

__global__ void rope_angles_kernel(const int32_t* positions, const float* inv_freq, int half,
                                   float* angles) {
  wait_for_earlier_work();
  let_next_kernel_start();
  for (int i = threadIdx.x; i < half; i += blockDim.x) {
    const float angle = static_cast<float>(positions[blockIdx.x]) * inv_freq[i];
    float* row = angles + static_cast<int64_t>(blockIdx.x) * 2 * half;
    row[i] = cosf(angle);
    row[half + i] = sinf(angle);
  }
}

__global__ void add_kernel(const float* x, float* out, int64_t count) {
  wait_for_earlier_work();
  let_next_kernel_start();
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    out[i] += x[i];
  }
}

constexpr int kRopeWarps = 4;

/// A warp for each row and head of up to 256; v heads are only copied to their page.
__global__ __launch_bounds__(kRopeWarps* kWarpLanes) void rope_and_append_kernel(
    const __grid_constant__ RopeArgs args) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const int lane = threadIdx.x % kWarpLanes;
  const int head = static_cast<int>(blockIdx.x) * kRopeWarps + threadIdx.x / kWarpLanes;
  const int row = blockIdx.y;
  const CacheArgs& cache = args.cache;
  const int key_head = head - args.heads, value_head = key_head - cache.kv_heads;
  if (value_head >= cache.kv_heads) return;
  const int half = cache.head_dim / 2;
  const int64_t width = static_cast<int64_t>(args.heads + 2 * cache.kv_heads) * cache.head_dim;
  auto* from = static_cast<__nv_bfloat16*>(args.qkv) + row * width +
               static_cast<int64_t>(head) * cache.head_dim;
  const bool is_unit = 4 * lane < half;
  PairUnit pairs(from, half, is_unit ? lane : 0);
  if (value_head < 0) {
    const float* norm = key_head < 0 ? args.q_norm : args.k_norm;
    const float squares = warp_sum(is_unit ? pairs.squares() : 0.0f);
    if (!is_unit) return;
    if (norm != nullptr) {
      pairs.normalize(head_norm_factor(squares, cache.head_dim, args.eps), norm, half, lane);
    }
    pairs.rotate(args.angles + static_cast<int64_t>(row) * cache.head_dim, half, lane);
  }
  __nv_bfloat16* to = from;
  if (key_head >= 0) {
    to = static_cast<__nv_bfloat16*>(value_head < 0 ? cache.keys : cache.values) +
         cache_offset(cache, args.sequences[row], value_head < 0 ? key_head : value_head,
                      args.slots[row]);
  }
  if (is_unit) pairs.store(to, half, lane);
}

}  // namespace

cudaError_t embed(const int32_t* tokens, int rows, const void* panels, const float* scales,
                  Packed format, int64_t first_row, int64_t vocab, int64_t cols, float* hidden,
                  Launch launch) {
  constexpr int kThreads = 256;
  const auto run = [&](auto kernel) {
    return launch_between_matmuls(kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0,
                                  launch, tokens, static_cast<const unsigned char*>(panels), scales,
                                  first_row, vocab, cols, hidden);
  };
  switch (format) {
    case Packed::kBF16:
      return run(embed_kernel<Packed::kBF16>);
    case Packed::kF16:
      return run(embed_kernel<Packed::kF16>);
    case Packed::kFp8:
      return run(embed_kernel<Packed::kFp8>);
    case Packed::kInt4:
      return run(embed_kernel<Packed::kInt4>);
  }
  return cudaErrorInvalidValue;
}

cudaError_t rms_norm(const float* x, const float* weight, float eps, int rows, int64_t cols,
                     void* out, Element out_type, Launch launch) {
  return launch_between_matmuls(rms_norm_kernel, dim3(static_cast<unsigned>(rows)),
                                dim3(kNormThreads), 0, launch, x, weight, eps, cols, out, out_type);
}

cudaError_t rope_angles(const int32_t* positions, const float* inv_freq, int rows, int half,
                        float* angles, Launch launch) {
  constexpr int kThreads = 128;
  return launch_between_matmuls(rope_angles_kernel, dim3(static_cast<unsigned>(rows)),
                                dim3(kThreads), 0, launch, positions, inv_freq, half, angles);
}

cudaError_t add(const float* x, float* out, int64_t count, Launch launch) {
  constexpr int kThreads = 256;
  const int64_t wanted = (count + kThreads - 1) / kThreads;
  const int64_t most = static_cast<int64_t>(launch.multiprocessors) * 8;
  return launch_between_matmuls(add_kernel,
                                dim3(static_cast<unsigned>(wanted < most ? wanted : most)),
                                dim3(kThreads), 0, launch, x, out, count);
}

cudaError_t rope_and_append(const RopeArgs& args, Launch launch) {
  const int heads = args.heads + 2 * args.cache.kv_heads;
  const dim3 grid(static_cast<unsigned>((heads + kRopeWarps - 1) / kRopeWarps),
                  static_cast<unsigned>(args.rows));
  return launch_between_matmuls(rope_and_append_kernel, grid, dim3(kRopeWarps * kWarpLanes), 0,
                                launch, args);
}

}  // namespace tandem::kernels
