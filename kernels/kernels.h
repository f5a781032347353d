#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "attention_layout.h"
#include "packed_layout.h"

/// CUDA kernels: raw pointers, sizes and a stream in, cudaError_t out. They check nothing; shapes
/// and choices are the caller's.
namespace tandem::kernels {

/// Where and how a kernel is launched.
struct Launch {
  cudaStream_t stream = nullptr;
  int multiprocessors = 1;
  int capability = 80;                ///< what the kernels were compiled for (compiled_capability)
  int block_shared_bytes = 48 << 10;  ///< the most shared memory that the device gives a block
  /// Lets the kernel start while the one before it drains; it then waits on the device for that
  /// one's results. Only where the capability can_overlap.
  bool overlap = false;
};

/// The compute capability, 10 * major + minor, whose code of the kernels the current device runs.
/// The device's own is newer where the driver translates an older one's PTX; what the kernels lay
/// out by capability then follows this one.
cudaError_t compiled_capability(int* capability);

/// Element types of activations.
enum class Element : int { kF32 = 0, kBF16 = 1 };

/// Reads `bytes` of memory (nearly all: a tail below one sweep is left out) and writes nothing.
cudaError_t read_memory(const void* data, int64_t bytes, uint32_t* sink, Launch launch);

// Weights -----------------------------------------------------------------------------------------

/// Element types of checkpoints.
enum class Source : int { kF32 = 0, kF16 = 1, kBF16 = 2 };

/// Packs a row-major slab of outputs.
struct PackArgs {
  const void* source = nullptr;  ///< (rows, cols) row-major, device memory
  Source source_type = Source::kBF16;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t first_row = 0;  ///< of the slab within its segment; a multiple of 16
  Packed format = Packed::kBF16;
  void* panels = nullptr;   ///< the segment's first panel
  float* scales = nullptr;  ///< fp8: one for each output of the segment's panels
  int paired_half = -1;     ///< 0 gate, 1 up; -1: not paired
};
cudaError_t pack(const PackArgs& args, Launch launch);

// Matmul ------------------------------------------------------------------------------------------

constexpr int kMaxSegments = 3;

enum class MatmulEpilogue : int { kStore = 0, kAdd = 1, kSiluGate = 2, kAddNorm = 3 };

/// out = x W^T, for a run of segments of one format whose panels follow each other.
struct MatmulArgs {
  const void* x = nullptr;  ///< (rows, cols)
  Element x_type = Element::kBF16;
  int rows = 0;
  int64_t cols = 0;
  Packed format = Packed::kBF16;
  const void* panels = nullptr;
  const float* scales = nullptr;  ///< fp8: by output, padded like the panels
  int64_t panel_count = 0;
  int segment_count = 0;
  int64_t segment_panel[kMaxSegments] = {};   ///< first panel
  int64_t segment_column[kMaxSegments] = {};  ///< first column of `out`
  int64_t segment_rows[kMaxSegments] = {};    ///< outputs (of one half when paired)
  const float* bias = nullptr;                ///< by output of the whole weight
  int64_t bias_up = 0;                        ///< paired: where the second half's biases begin
  MatmulEpilogue epilogue = MatmulEpilogue::kStore;
  void* out = nullptr;
  Element out_type = Element::kBF16;
  int64_t out_stride = 0;
  // An RMS norm between two matmuls, matmul_rows only. The first (kAddNorm, one segment) leaves
  // out * norm_weight and, by row and panel, sums of squares of `out`; the second multiplies its
  // sums by the row's 1 / RMS.
  const float* norm_weight = nullptr;  ///< kAddNorm: (panel_count * 16 at most) by output
  void* normed = nullptr;              ///< kAddNorm: (rows, out_stride) bfloat16
  float* squares_out = nullptr;        ///< kAddNorm: (rows, panel_count)
  const float* squares = nullptr;      ///< of x, (rows, panels_of(cols)); null: x is complete
  float eps = 0;
};
/// Shared memory that matmul_rows takes for a block, whatever the format.
int matmul_rows_shared_bytes(int capability);
/// At most kMaxDecodeRows rows.
cudaError_t matmul_rows(const MatmulArgs& args, Launch launch);
/// Any number of rows.
cudaError_t matmul_prefill(const MatmulArgs& args, Launch launch);

// Forward -----------------------------------------------------------------------------------------

/// A table of `vocab` rows, the first of which is that of token `first_row`; others give zeros.
cudaError_t embed(const int32_t* tokens, int rows, const void* panels, const float* scales,
                  Packed format, int64_t first_row, int64_t vocab, int64_t cols, float* hidden,
                  Launch launch);
cudaError_t rms_norm(const float* x, const float* weight, float eps, int rows, int64_t cols,
                     void* out, Element out_type, Launch launch);
/// What a sum leaves of its rows' RMS norm, as matmul_rows' kAddNorm does. `cols` is a multiple of
/// 16.
struct NormArgs {
  const float* weight = nullptr;  ///< (cols)
  void* normed = nullptr;         ///< (rows, cols) bfloat16: out * weight
  float* squares = nullptr;       ///< (rows, cols / 16): sums of squares of `out`
  int cols = 0;
};
cudaError_t rope_angles(const int32_t* positions, const float* inv_freq, int rows, int half,
                        float* angles, Launch launch);
cudaError_t add(const float* x, float* out, int64_t count, Launch launch);

/// A layer's cache (bfloat16) and its page table.
struct CacheArgs {
  void* keys = nullptr;  ///< (pages, kv_heads, page_tokens, head_dim)
  void* values = nullptr;
  const int32_t* page_table = nullptr;
  int max_pages = 0;
  int page_tokens = 0;
  int kv_heads = 0;
  int head_dim = 0;
};
struct RopeArgs {
  const int32_t* slots = nullptr;
  const int32_t* sequences = nullptr;
  int rows = 0;
  int heads = 0;
  void* qkv = nullptr;            ///< (rows, (heads + 2 kv_heads) head_dim) bfloat16
  const float* angles = nullptr;  ///< (rows, head_dim)
  const float* q_norm = nullptr;  ///< null: none
  const float* k_norm = nullptr;
  float eps = 0;
  CacheArgs cache;
};
cudaError_t rope_and_append(const RopeArgs& args, Launch launch);

/// Values have to be finite: one behind a row's slot has weight 0 for it, and 0 * infinity is none.
struct AttentionArgs {
  const int32_t* slots = nullptr;
  const int32_t* sequences = nullptr;
  int rows = 0;
  int heads = 0;
  float scale = 1;
  const void* qkv = nullptr;
  /// (rows, head_dim), decode only: q and k are still to be rotated by them, k and v to be appended
  /// at the rows' slots. Null: rope_and_append has done so. With them, slots, sequences, page table
  /// and what the cache holds of other slots are read before the work in front is done; behind
  /// whatever wrote these there must have been an `embed` or `rope_angles`, or no overlap.
  const float* angles = nullptr;
  const float* q_norm = nullptr;  ///< with angles: heads are normed first; null: they are not
  const float* k_norm = nullptr;
  float eps = 0;
  void* out = nullptr;  ///< (rows, heads * head_dim) bfloat16
  CacheArgs cache;
  // Decode only: what finished items are counted in (kMostAttentionHeads, zero when they are first
  // used, and again behind every launch), and attention_partial_floats(...).
  int* finished = nullptr;
  float* partials = nullptr;
};
/// Whether attention_decode can rotate and append for heads of this size.
bool attention_decode_appends(int head_dim);
cudaError_t attention_decode(const AttentionArgs& args, Launch launch);
cudaError_t attention_prefill(const AttentionArgs& args, Launch launch);

}  // namespace tandem::kernels
