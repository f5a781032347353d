#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tandem {

/// Instruction sets that the kernels are compiled for, in ascending order of preference.
enum class CpuIsa : uint8_t { kPortable, kAvx2, kAvx512 };

std::string_view name_of(CpuIsa isa);
/// Whether this build has the kernels and this machine the instructions.
bool has_isa(CpuIsa isa);
CpuIsa best_isa();

/// Lanes of every kernel: outputs of a weight panel, partial sums of a reduction. The narrower
/// instruction sets use several registers for one such vector, so that layouts and orders of
/// summation are the same everywhere.
inline constexpr int kLanes = 16;

/// A run of panels of one weight segment times all rows of a pass.
/// panel p holds outputs [16 p, 16 p + 16) of the segment; its sums go to out[r * out_stride +
/// column(p) …].
struct MatmulArgs {
  const float* x = nullptr;  ///< (rows, cols)
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* panels = nullptr;  ///< the segment's first panel
  const float* scales = nullptr;      ///< quantised formats: of the segment's first panel
  const float* bias = nullptr;        ///< of the segment's first output, or null
  float* out = nullptr;               ///< (rows, out_stride), at the segment's first column
  int64_t out_stride = 0;
  int64_t outputs =
      0;  ///< of the segment (of one half when paired); the last panel may be partly padding
  int64_t first_panel = 0;  ///< this worker's panels
  int64_t last_panel = 0;   ///< (exclusive); even, like first_panel, when paired
  bool paired = false;  ///< panels alternate gate, up: panel 2 i is gate's i-th, panel 2 i + 1 up's
  bool add = false;     ///< out += instead of out =
  bool silu_gate = false;  ///< paired only: out = silu(gate) * up
};

/// One key/value head and a block of rows of one sequence.
struct AttentionArgs {
  const float* q = nullptr;  ///< the first row's first query head of this kv head
  int64_t q_stride = 0;      ///< floats between rows
  float* out = nullptr;      ///< likewise
  int64_t out_stride = 0;
  const int32_t* slots = nullptr;  ///< (rows) last slot each row sees
  int rows = 0;
  int group = 0;  ///< query heads that share the kv head
  int head_dim = 0;
  float scale = 1.0f;
  const float* keys = nullptr;    ///< this head's keys in page 0, (head_dim, page_tokens)
  const float* values = nullptr;  ///< likewise, (page_tokens, head_dim)
  int64_t page_stride = 0;        ///< floats between pages
  const int32_t* pages = nullptr;
  int page_tokens = 0;
  float* scratch = nullptr;  ///< attention_scratch_floats(rows, group, head_dim)
};
/// Enough for any instruction set.
size_t attention_scratch_floats(int rows, int group, int head_dim);

/// Where element `d` of the key at slot `t` of a page lies within its head: slots are innermost, so
/// that a vector holds one element of 16 keys and their scores need no sums across lanes.
constexpr int64_t key_offset(int64_t t, int64_t d, int64_t page_tokens) {
  return d * page_tokens + t;
}

/// Slots in a part of the cache; parts are combined in ascending order (DESIGN 4).
inline constexpr int kAttentionPart = 64;

/// The inner loops of the backend for one instruction set. The order of every sum depends on its
/// length alone.
struct CpuKernels {
  void (*matmul_bf16)(const MatmulArgs& args) = nullptr;
  void (*matmul_f16)(const MatmulArgs& args) = nullptr;
  void (*matmul_f32)(const MatmulArgs& args) = nullptr;
  void (*matmul_fp8)(const MatmulArgs& args) = nullptr;
  void (*matmul_int4)(const MatmulArgs& args) = nullptr;
  void (*attention)(const AttentionArgs& args) = nullptr;
  /// out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]; out may be x
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out) = nullptr;
  /// (x[i], x[i + half]) rotated by angles (cos[half], sin[half]), in place
  void (*rotate)(float* x, const float* angles, int64_t half) = nullptr;
  /// out[i] += x[i]
  void (*add)(const float* x, int64_t n, float* out) = nullptr;

  // For the round's ops over a vocabulary.
  /// The largest element; -infinity when n = 0. No element may be NaN.
  float (*max)(const float* x, int64_t n) = nullptr;
  /// out[i] = exp((x[i] - shift) * scale), within 2 ulp, 0 below the smallest normal number;
  /// returns the sum. out may be x.
  float (*exp_sum)(const float* x, float shift, float scale, int64_t n, float* out) = nullptr;
  /// out[i] = x[i] * factor; out may be x
  void (*scale)(const float* x, float factor, int64_t n, float* out) = nullptr;
  /// Philox4x32-10 of `counter` with token blocks first_block … first_block + 15 in the place of
  /// counter[2]: word j of block i goes to words[16 j + i].
  void (*philox_blocks)(const uint32_t* counter, uint64_t key, uint32_t first_block,
                        uint32_t* words) = nullptr;
};

/// @throws UsageError when this build or machine lacks the instruction set
const CpuKernels& cpu_kernels(CpuIsa isa);

}  // namespace tandem
