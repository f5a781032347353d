#pragma once

#include "core/tensor_view.h"

namespace tandem {

/// The rows of one pass, in device memory; the count is fixed when the pass is launched.
/// `position` is where the token stands in the text (what rope sees); `slot` is where its key and
/// value go in the cache. For a chain they are equal; a tree gives siblings one position and
/// different slots.
struct Rows {
  int count = 0;
  TensorView tokens;     ///< (max_rows) i32
  TensorView positions;  ///< (max_rows) i32
  TensorView slots;      ///< (max_rows) i32
  TensorView sequences;  ///< (max_rows) i32 index into the page tables
};

/// The RMS norm of some rows on its way from `Backend::matmul_add_norm` or `add_parts_norm` to
/// `Backend::matmul_normed`.
struct NormedRows {
  /// Elements that share a sum of squares.
  static constexpr int kPart = 16;
  static constexpr int64_t parts(int64_t elements) { return (elements + kPart - 1) / kPart; }

  TensorView values;   ///< (rows, d) activations
  TensorView squares;  ///< (rows, parts(d)) f32, the backend's notes; empty: `values` are complete
  float eps = 0;
};

/// One layer's keys and values as the ops see them, in pages of `page_tokens` slots.
/// Slot s of sequence q lies in page table[q * max_pages + s / page_tokens] at s % page_tokens.
/// How the elements of one head lie within a page is the backend's own affair; whole pages may be
/// copied.
struct KvLayerView {
  TensorView keys;    ///< (pages, kv_heads, page_tokens, head_dim), f32 on CPU, bf16/f16 on CUDA
  TensorView values;  ///< the same
  const int32_t* page_table = nullptr;  ///< (sequences, max_pages), device memory
  int max_pages = 0;
  int page_tokens = 0;
  int kv_heads = 0;
  int head_dim = 0;
};

}  // namespace tandem
