#pragma once

#include <type_traits>

#include "matmul_epilogue.cuh"
#include "weight_ring.cuh"

namespace tandem::kernels {

// out = x W^T for 1 … 16 rows.
// Bound: the bytes of W, read once, whatever the number of rows.
// Work: blocks own runs of panels (16 outputs); eight warps of a block split the inputs, 64 at a
// time in turn, a chunk of 512 together. One more warp streams the weights through a ring in
// shared memory, chunks of some panels at a time (the copy engine takes about 80 cycles for a copy,
// so small ones would bind it); the ring starts to fill before the kernel's inputs exist, and two
// blocks fit on a multiprocessor (one of 100 KiB holds one), so that the next matmul's ring fills
// while this one works. Every lane fetches its share of the rows' inputs some chunks ahead from L2;
// it serves a group of panels. Before compute capability 9.0 each warp copies its own share of the
// ring. Sums: tensor cores along a warp's inputs, then the warps in ascending order; so a row's
// bits depend on the shape alone, never on the other rows. A last warp forms the factors of an RMS
// norm in front of the matmul meanwhile; they are needed at the end.

/// Meeting of the warps that multiply.
__device__ __forceinline__ void sync_multipliers() {
  asm volatile("bar.sync 1, %0;" ::"n"(kWarps * kWarpLanes) : "memory");
}

/// Where the rows' 1 / RMS stand in shared memory.
__device__ __forceinline__ float* factors_of(unsigned char* shared, Packed format) {
  return reinterpret_cast<float*>(shared + ring_bytes(format) + kReduceBytes + kInputBytes);
}
/// A warp's work: the others read the factors behind wait_for_factors.
__device__ __forceinline__ void form_factors(const MatmulArgs& args, float* factors, int lane) {
  const int parts = static_cast<int>(panels_of(args.cols));
  constexpr int kRowsAtOnce = 4;
  for (int first = 0; first < args.rows; first += kRowsAtOnce) {
    float sums[kRowsAtOnce] = {};
    const float* const squares = args.squares + static_cast<int64_t>(first) * parts;
#pragma unroll 8
    for (int part = lane; part < parts; part += kWarpLanes) {
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        if (first + i < args.rows) sums[i] += __ldcg(squares + i * parts + part);
      }
    }
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) {
      const float sum = warp_sum(sums[i]);
      if (lane == 0 && first + i < args.rows) {
        factors[first + i] = 1.0f / sqrtf(sum / static_cast<float>(args.cols) + args.eps);
      }
    }
  }
  __syncwarp();
  asm volatile("bar.arrive 2, %0;" ::"n"((kWarps + 1) * kWarpLanes) : "memory");
}
/// Its work until the kernel's inputs exist: it reads what the end needs, so that it is near then.
template <Packed kFormat>
__device__ __forceinline__ void bring_near(const MatmulArgs& args, const Groups& groups, int lane) {
  const auto load = [](const float* from) {
    float value;
    asm volatile("ld.global.ca.f32 %0, [%1];" : "=f"(value) : "l"(from));
  };
  for (int i = lane; i < groups.panels * kPanelOutputs; i += kWarpLanes) {
    const int64_t output = int64_t{groups.first} * kPanelOutputs + i;
    if constexpr (kFormat == Packed::kFp8) load(args.scales + output);
    if (args.norm_weight != nullptr && output < args.out_stride) load(args.norm_weight + output);
  }
}
__device__ __forceinline__ void wait_for_factors() {
  asm volatile("bar.sync 2, %0;" ::"n"((kWarps + 1) * kWarpLanes) : "memory");
}

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

/// Calls run(Constant<0>()) … run(Constant<kCount - 1>()).
template <int kCount, typename Run>
__device__ __forceinline__ void for_each(Run&& run) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  run(Constant<0>());
  if constexpr (kCount > 1) run(Constant<1>());
  if constexpr (kCount > 2) run(Constant<2>()), run(Constant<3>());
}

/// Calls run(first, number) for the panels 0 … min(count, kPanels) - 1 of a stage, as many at once
/// as it goes: their products do not wait for each other.
template <int kPanels, typename Run>
__device__ __forceinline__ void for_panels(int count, Run&& run) {
  static_assert(kPanels == 1 || kPanels == 2 || kPanels == 4);
  if (count >= kPanels) {
    run(Constant<0>(), Constant<kPanels>());
    return;
  }
  if constexpr (kPanels == 4) {
    if (count >= 2) run(Constant<0>(), Constant<2>());
    if (count == 1) run(Constant<0>(), Constant<1>());
    if (count == 3) run(Constant<2>(), Constant<1>());
  } else {
    run(Constant<0>(), Constant<1>());
  }
}

/// What an output is added to, or 0.
__device__ __forceinline__ float load_residual(const MatmulArgs& args, int panel, int row,
                                               int output) {
  if (args.epilogue != MatmulEpilogue::kAdd && args.epilogue != MatmulEpilogue::kAddNorm) return 0;
  const int column = output_column(args, panel, output, kPanelOutputs);
  if (column < 0 || row >= args.rows) return 0;
  return __ldcg(static_cast<const float*>(args.out) + row * static_cast<int>(args.out_stride) +
                column);
}

/// One finished sum of products to its place. The 16 outputs of a panel are neighbouring lanes.
template <Packed kFormat>
__device__ __forceinline__ void finish_sum(const MatmulArgs& args, int panel, int row, int output,
                                           float sum, float scale, float residual,
                                           const float* factors) {
  if constexpr (kFormat == Packed::kFp8) sum *= scale * kTwoTo60;
  const bool is_row = row < args.rows;
  if (args.squares != nullptr && is_row) sum *= factors[row];
  const bool gate = args.epilogue == MatmulEpilogue::kSiluGate;
  constexpr int kHalf = kPanelOutputs / 2;
  const float up = gate ? __shfl_down_sync(0xffffffffu, sum, kHalf) : 0.0f;
  const int column = !gate            ? output_column(args, panel, output, kPanelOutputs)
                     : output < kHalf ? output_column(args, panel, output, kHalf)
                                      : -1;
  const bool is_output = column >= 0 && is_row;
  const int index = row * static_cast<int>(args.out_stride) + column;
  if (args.epilogue != MatmulEpilogue::kAddNorm) {
    if (is_output) write_output(args, index, column, sum, up, residual);
    return;
  }
  float value = 0;
  if (is_output) {
    value = residual + (args.bias == nullptr ? sum : sum + args.bias[column]);
    static_cast<float*>(args.out)[index] = value;
    static_cast<__nv_bfloat16*>(args.normed)[index] =
        __float2bfloat16_rn(value * args.norm_weight[column]);
  }
  float squares = value * value;
#pragma unroll
  for (int offset = kHalf; offset > 0; offset /= 2) {
    squares += __shfl_xor_sync(0xffffffffu, squares, offset);
  }
  if (output == 0 && is_row) {
    args.squares_out[row * static_cast<int>(args.panel_count) + panel] = squares;
  }
}

/// sums[b] += the products of block b: 16 outputs, the rows and 64 inputs; the blocks in turn.
template <Packed kFormat, int kPanels, int kChunks, int kRowTiles>
__device__ __forceinline__ void multiply_tiles(const WeightBlock<kFormat>* weights,
                                               float (*sums)[kRowTiles][4],
                                               const uint4 (*inputs)[kRowTiles][2]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#pragma unroll
    for (int b = 0; b < kPanels * kChunks; ++b) {
      uint32_t a[4];
      weights[b].tile(j, a);
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        const uint4& x = inputs[b / kPanels][n][j / 2];
        multiply<kFormat>(sums[b][n], a, j % 2 == 0 ? x.x : x.z, j % 2 == 0 ? x.y : x.w);
      }
    }
  }
}

/// sums += the products of this warp's blocks of kPanels panels, `pitch` bytes apart, and of
/// kChunks chunks of each. A panel's chunks are added in ascending order.
template <Packed kFormat, int kPanels, int kChunks, int kRowTiles>
__device__ __forceinline__ void multiply_blocks(const unsigned char* data, int pitch,
                                                float (*sums)[kRowTiles][4],
                                                const uint4 (*inputs)[kRowTiles][2],
                                                const float2 (*offsets)[kRowTiles], int lane) {
  constexpr int kBlocks = kPanels * kChunks;
  WeightBlock<kFormat> weights[kBlocks];
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
    weights[b].load(data + b % kPanels * pitch + b / kPanels * chunk_bytes(kFormat), lane);
  }
  if constexpr (kFormat == Packed::kInt4) {
    float parts[kBlocks][kRowTiles][4];
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        const float2 start = offsets[b / kPanels][n];
        parts[b][n][0] = parts[b][n][2] = start.x;
        parts[b][n][1] = parts[b][n][3] = start.y;
      }
    }
    multiply_tiles<kFormat, kPanels, kChunks, kRowTiles>(weights, parts, inputs);
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const float low = weights[b].low(), high = weights[b].high();
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        float* sum = sums[b % kPanels][n];
        sum[0] = fmaf(parts[b][n][0], low, sum[0]);
        sum[1] = fmaf(parts[b][n][1], low, sum[1]);
        sum[2] = fmaf(parts[b][n][2], high, sum[2]);
        sum[3] = fmaf(parts[b][n][3], high, sum[3]);
      }
    }
  } else {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      multiply_tiles<kFormat, kPanels, 1, kRowTiles>(weights + c * kPanels, sums, inputs + c);
    }
  }
}

/// @tparam kPanels panels of a stage; with fewer than fit, no block has more of them in all
template <Packed kFormat, int kRowTiles, bool kVectors, int kPanels>
__global__ __launch_bounds__(kRowsThreads, kBlocksPerMultiprocessor) void matmul_rows_kernel(
    const __grid_constant__ MatmulArgs args) {
  constexpr int kGroup =
      kPanels == chunks_per_stage(kFormat) ? panels_per_group(kRowTiles) : kPanels;
  constexpr int kDepth = Walk<kFormat, kPanels>::kDepth;
  constexpr int kRows = 8 * kRowTiles;
  static_assert(kGroup % kPanels == 0);
  extern __shared__ __align__(128) unsigned char shared[];
  // One value for the whole warp, as the compiler sees, too.
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpLanes, 0);
  const int lane = threadIdx.x % kWarpLanes;
  const int g = lane / 4, t = lane % 4;
  const int blocks = static_cast<int>(blocks_of(args.cols));
  const Groups groups(args.panel_count, kGroup);

  let_next_kernel_start();
  Ring<kFormat, kPanels> ring(shared, Walk<kFormat, kPanels>(args.panels, groups, blocks), warp,
                              lane);
  if (warp == kWarps) {
    ring.copy_all();
    return;
  }
  if (warp == kWarps + 1) {
    bring_near<kFormat>(args, groups, lane);
    wait_for_earlier_work();
    if (args.squares != nullptr && groups.count > 0)
      form_factors(args, factors_of(shared, kFormat), lane);
    return;
  }

  // inputs[n][h]: row 8 n + g, inputs 32 h + 8 t … + 7 of the warp's current 64
  const uint16_t* x[kRowTiles];
  int row_inputs[kRowTiles];
  const int first_input = warp * kBlockInputs + 8 * t;
#pragma unroll
  for (int n = 0; n < kRowTiles; ++n) {
    const bool is_row = 8 * n + g < args.rows;
    x[n] = static_cast<const uint16_t*>(args.x) + (is_row ? (8 * n + g) * args.cols : 0);
    row_inputs[n] = is_row ? static_cast<int>(args.cols) : 0;
  }
  // Chunks of a stage that are worked on together: their products do not wait for each other.
  constexpr int kTogether = kRowTiles == 1 ? kDepth : 1;
  // Each lane fetches what it will read, the inputs of so many chunks at a time, so that nobody
  // waits for anybody.
  constexpr int kAhead = kInputsAhead / kRowTiles / kTogether;
  static_assert(kAhead > 0 && kDepth % kTogether == 0);
  constexpr int kChunkInputs = kWarps * kBlockInputs, kFetchInputs = kTogether * kChunkInputs;
  constexpr int kFetchBytes = kTogether * kRowTiles * kRowTileBytes;
  const uint32_t slots = shared_address(shared) + ring_bytes(kFormat) + kReduceBytes +
                         warp * kInputsAhead * kRowTileBytes + lane * 16;
  const int group_fetches = (blocks + kTogether * kWarps - 1) / (kTogether * kWarps);
  int slot = 0, input = first_input;           // to fetch next
  int fetches = groups.count * group_fetches;  // still to come
  wait_for_earlier_work();
  const auto fetch_inputs = [&] {
    if (fetches > 0) {
      uint32_t to = slots + slot * kFetchBytes;
#pragma unroll
      for (int at = 0; at < kTogether; ++at) {
#pragma unroll
        for (int n = 0; n < kRowTiles; ++n) {
#pragma unroll
          for (int h = 0; h < 2; ++h, to += kWarpLanes * 16) {
            const int from = input + at * kChunkInputs + 32 * h;
            if constexpr (kVectors) {
              copy_async16(to, x[n] + from, from < row_inputs[n]);
            } else {
              store_shared16(to, load_any_inputs(args, 8 * n + g, from));
            }
          }
        }
      }
      // behind the last chunk the next group begins with the first one again
      input += kFetchInputs;
      if (input >= group_fetches * kFetchInputs) input = first_input;
      --fetches;
    }
    slot = (slot + 1) % kAhead;
    copy_async_commit();
  };
  uint4 inputs[kTogether][kRowTiles][2];
  float2 offsets[kTogether][kRowTiles];
  // Before 9.0 the ring's copies are groups in between: its front() has waited for all that was
  // fetched in the stages before, and to wait here would mean to wait for weights, too.
  constexpr bool kFrontWaits = kCapability < 90 && kAhead * kTogether >= kDepth;
  const auto take_inputs = [&] {
    if constexpr (!kFrontWaits) copy_async_wait<kAhead - 1>();
    uint32_t from = slots + slot * kFetchBytes;
#pragma unroll
    for (int at = 0; at < kTogether; ++at) {
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
#pragma unroll
        for (int h = 0; h < 2; ++h, from += kWarpLanes * 16) {
          inputs[at][n][h] = to_operand<kFormat>(load_shared16(from));
        }
        offsets[at][n] = input_offsets<kFormat>(inputs[at][n]);
      }
    }
    fetch_inputs();
  };
#pragma unroll
  for (int i = 0; i < kAhead; ++i) fetch_inputs();
#if __CUDA_ARCH__ < 900
  copy_async_wait<0>();
#endif

  auto* reduce = reinterpret_cast<float*>(shared + ring_bytes(kFormat));
  const float* const factors = factors_of(shared, kFormat);
  // Thread (slice, row, output) adds up the warps' sums of one of the panels of a round. For one
  // or two rows a round is the whole group: a panel for each warp.
  constexpr int kPanelFloats = kRows * kReducePitch;
  constexpr int kSlices = kWarps * kWarpLanes / (kRows * kPanelOutputs);
  static_assert(kSlices * kWarps * kPanelFloats * 4 <= kReduceBytes);
  constexpr int kRounds = (kGroup + kSlices - 1) / kSlices;
  constexpr int kFewRows = kWarpLanes / kPanelOutputs;
  static_assert(kGroup <= kWarps);
  static_assert(kGroup * kWarps * kFewRows * kReducePitch * 4 <= kReduceBytes);
  constexpr bool kMayBeFew = kRowTiles == 1 && kGroup > kSlices;
  const bool few = kMayBeFew && args.rows <= kFewRows;
  const int slice = few ? warp : threadIdx.x / (kRows * kPanelOutputs);
  const int row = threadIdx.x / kPanelOutputs % (few ? kFewRows : kRows);
  const int output = threadIdx.x % kPanelOutputs;

  for (int group = 0; group < groups.count; ++group) {
    const int first = groups.begin(group);
    const int count = groups.begin(group + 1) - first;
    float sums[kGroup][kRowTiles][4] = {};
    // What the sums are added to comes while they are formed.
    float residuals[kRounds], scales[kRounds];
#pragma unroll
    for (int p = 0; p < kGroup; p += kSlices) {
      if (few && p > 0) break;
      const int panel = first + p + slice;
      const bool is_panel = p + slice < count;
      residuals[p / kSlices] = is_panel ? load_residual(args, panel, row, output) : 0.0f;
      if constexpr (kFormat == Packed::kFp8) {
        scales[p / kSlices] = is_panel ? args.scales[panel * kPanelOutputs + output] : 0.0f;
      } else {
        scales[p / kSlices] = 1.0f;
      }
    }
    for (int block = 0; block < blocks; block += kDepth * kWarps) {
#pragma unroll
      for (int p = 0; p < kGroup; p += kPanels) {
        if (p < count) {
          const unsigned char* stage = ring.front();
#pragma unroll
          for (int first_chunk = 0; first_chunk < kDepth; first_chunk += kTogether) {
            if (p == 0 && block + first_chunk * kWarps < blocks) take_inputs();
            // Chunks at … at + chunks - 1 of the panels from … from + number - 1. What is loaded
            // and what is multiplied stand apart, so that the products do not wait for each other.
            const auto multiply_chunks = [&](auto at, auto chunks) {
              for_panels<kPanels>(count - p, [&](auto from, auto number) {
                // Blocks at once: as many as registers hold.
                constexpr int kMost = kRowTiles == 1 ? kPanels : 2;
                constexpr int kAtOnce = number < kMost ? number : kMost;
#pragma unroll
                for (int q = from; q < from + number; q += kAtOnce) {
                  const unsigned char* const data = stage +
                                                    q * Ring<kFormat, kPanels>::kPanelBytes +
                                                    (first_chunk + at) * chunk_bytes(kFormat);
                  multiply_blocks<kFormat, kAtOnce, chunks, kRowTiles>(
                      data, Ring<kFormat, kPanels>::kPanelBytes, &sums[p + q], &inputs[at],
                      &offsets[at], lane);
                }
              });
            };
            // Behind the last input the stage holds old bytes.
            const int blocks_left = blocks - (block + first_chunk * kWarps + warp);
            if (blocks_left > (kTogether - 1) * kWarps) {
              multiply_chunks(Constant<0>(), Constant<kTogether>());
            } else if constexpr (kTogether > 1) {
              for_each<kTogether>([&](auto at) {
                if (blocks_left > at * kWarps) multiply_chunks(at, Constant<1>());
              });
            }
          }
          ring.pop();
        }
      }
    }

    if (group == 0 && args.squares != nullptr) wait_for_factors();
    if constexpr (kMayBeFew) {
      if (few) {
        if (group > 0) sync_multipliers();  // the last group's sums have been read
#pragma unroll
        for (int p = 0; p < kGroup; ++p) {
          if (p >= count || t > 0) continue;
          float* mine = reduce + (p * kWarps + warp) * kFewRows * kReducePitch + g;
          mine[0] = sums[p][0][0];
          mine[kReducePitch] = sums[p][0][1];
          mine[8] = sums[p][0][2];
          mine[kReducePitch + 8] = sums[p][0][3];
        }
        sync_multipliers();
        if (warp >= count) continue;
        const float* from = reduce + (warp * kWarps * kFewRows + row) * kReducePitch + output;
        float sum = from[0];
#pragma unroll
        for (int w = 1; w < kWarps; ++w) sum += from[w * kFewRows * kReducePitch];
        finish_sum<kFormat>(args, first + warp, row, output, sum, scales[0], residuals[0], factors);
        continue;
      }
    }
#pragma unroll
    for (int p = 0; p < kGroup; p += kSlices) {
      if (p < count) {
        if (group + p > 0) sync_multipliers();  // the last round's sums have been read
#pragma unroll
        for (int q = 0; q < kSlices && p + q < kGroup; ++q) {
          float* mine = reduce + (q * kWarps + warp) * kPanelFloats + 2 * t * kReducePitch + g;
#pragma unroll
          for (int n = 0; n < kRowTiles; ++n) {
            float* tile = mine + n * 8 * kReducePitch;
            tile[0] = sums[p + q][n][0];
            tile[kReducePitch] = sums[p + q][n][1];
            tile[8] = sums[p + q][n][2];
            tile[kReducePitch + 8] = sums[p + q][n][3];
          }
        }
        sync_multipliers();
        if (p + slice < count) {
          const float* from = reduce + slice * kWarps * kPanelFloats + row * kReducePitch + output;
          float sum = from[0];
#pragma unroll
          for (int w = 1; w < kWarps; ++w) sum += from[w * kPanelFloats];
          finish_sum<kFormat>(args, first + p + slice, row, output, sum, scales[p / kSlices],
                              residuals[p / kSlices], factors);
        }
      }
    }
  }
}

template <Packed kFormat>
cudaError_t launch_matmul_rows(const MatmulArgs& args, Launch launch) {
  // One for each multiprocessor even where there are fewer panels: an empty place would be taken by
  // a second block of the next matmul, which another multiprocessor then lacks.
  const int blocks = launch.multiprocessors;
  const int bytes = shared_bytes(kFormat, stages_of(launch.capability));
  const auto run = [&](void (*kernel)(MatmulArgs)) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
    return launch_kernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kRowsThreads),
                         static_cast<size_t>(bytes), launch, args);
  };
  constexpr int kMany = chunks_per_stage(kFormat);
  const auto run_panels = [&](auto panels) {
    constexpr int kPanels = decltype(panels)::value;
    if (!has_vector_inputs(args)) return run(matmul_rows_kernel<kFormat, 2, false, kPanels>);
    return args.rows <= 8 ? run(matmul_rows_kernel<kFormat, 1, true, kPanels>)
                          : run(matmul_rows_kernel<kFormat, 2, true, kPanels>);
  };
  if constexpr (kMany > 1) {
    if (args.panel_count <= blocks) return run_panels(Constant<1>());
  }
  if constexpr (kMany > 2) {
    if (args.panel_count <= 2 * int64_t{blocks}) return run_panels(Constant<2>());
  }
  return run_panels(Constant<kMany>());
}

}  // namespace tandem::kernels
