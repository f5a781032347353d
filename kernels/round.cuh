#pragma once

#include "common.cuh"
#include "round.h"

namespace tandem::kernels {

/// Philox4x32-10 (Salmon et al. 2011), as core/philox.h has it.
__device__ __forceinline__ uint4 philox(uint4 counter, uint64_t key) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  constexpr int kRounds = 10;
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t high0 = __umulhi(kMultiplier0, counter.x), low0 = kMultiplier0 * counter.x;
    const uint32_t high1 = __umulhi(kMultiplier1, counter.z), low1 = kMultiplier1 * counter.z;
    counter = {high1 ^ counter.y ^ k0, low1, high0 ^ counter.w ^ k1, low0};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return counter;
}

__device__ __forceinline__ uint4 random_counter(int position, int round_base, uint32_t token_block,
                                                Purpose purpose, int sequence) {
  return {static_cast<uint32_t>(position), static_cast<uint32_t>(round_base), token_block,
          (static_cast<uint32_t>(purpose) << 24) | static_cast<uint32_t>(sequence)};
}

/// A uniform in (0, 1) with 52 bits: the first two numbers of token block 0.
__device__ __forceinline__ double round_uniform(const RoundArgs& round, int sequence, int position,
                                                Purpose purpose) {
  const uint4 bits = philox(
      random_counter(position, round.round_base[sequence], 0, purpose, round.streams[sequence]),
      round.seeds[sequence]);
  constexpr int kLowBits = 20;
  const uint64_t mantissa =
      (static_cast<uint64_t>(bits.x) << kLowBits) | (bits.y >> (32 - kLowBits));
  return (static_cast<double>(mantissa) + 0.5) * 0x1p-52;
}

/// Bits that order as the floats do; those of both zeros are equal.
__device__ __forceinline__ uint32_t ordered_bits(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

/// Keys that order by score, then by lower id.
__device__ __forceinline__ unsigned long long choice_key(float score, int id) {
  return (static_cast<unsigned long long>(ordered_bits(score)) << 32) |
         (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ int32_t id_of(unsigned long long key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}
__device__ __forceinline__ float score_of(unsigned long long key) {
  const auto bits = static_cast<uint32_t>(key >> 32);
  return __uint_as_float((bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits);
}

constexpr int kRowThreads = 1024;
constexpr int kRowWarps = kRowThreads / kWarpLanes;

/// Sum or maximum over the block, the same on every thread and in every run.
template <typename T, typename Combine>
__device__ __forceinline__ T reduce_block(T value, T* shared, Combine combine) {
#pragma unroll
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  __syncthreads();  // the last use of `shared` is over
  if (threadIdx.x % kWarpLanes == 0) shared[threadIdx.x / kWarpLanes] = value;
  __syncthreads();
  value = shared[threadIdx.x % kRowWarps];
#pragma unroll
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  return value;
}
struct Plus {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

/// A row's logits after penalties and mask (CTRL's repetition penalty, Keskar et al. 2019).
struct AdjustedRow {
  const float* logits;
  const TransformArgs& transform;
  const uint8_t* allowed;
  const int32_t* counts = nullptr;
  const uint8_t* prompt_seen = nullptr;
  const int32_t* drafts = nullptr;
  int drafted = 0;

  __device__ AdjustedRow(const RoundArgs& round, const LogitsArgs& args, int row)
      : logits(args.logits + static_cast<int64_t>(row) * args.columns),
        transform(args.transform),
        allowed(args.allowed) {
    if (!transform.penalties) return;
    const int per_sequence = args.rows / round.sequences;
    const int sequence = row / per_sequence;
    counts = round.output_counts + static_cast<int64_t>(sequence) * round.vocab;
    prompt_seen = round.prompt_seen + static_cast<int64_t>(sequence) * round.vocab;
    drafts = round.drafts + static_cast<int64_t>(sequence) * round.max_drafts;
    drafted = args.prefix + row % per_sequence;
  }

  __device__ bool is_plain() const { return !transform.penalties && allowed == nullptr; }
  __device__ float operator()(int id) const {
    float logit = logits[id];
    if (transform.penalties) {
      int count = counts[id];
      for (int i = 0; i < drafted; ++i) count += drafts[i] == id ? 1 : 0;
      if (prompt_seen[id] != 0 || count > 0) {
        logit =
            logit > 0 ? logit / transform.repetition_penalty : logit * transform.repetition_penalty;
      }
      const float presence = count > 0 ? transform.presence_penalty : 0.0f;
      logit -= presence + transform.frequency_penalty * static_cast<float>(count);
    }
    return allowed == nullptr || allowed[id] != 0 ? logit : -INFINITY;
  }
};

}  // namespace tandem::kernels
