#pragma once

#include <cstdint>

#include "backend/rows.h"
#include "core/tensor_view.h"

namespace tandem {

// What the CPU's ops ask of their arguments. `what` names the op and the argument.

/// @throws ShapeError unless `view` holds `count` float32 elements
void check_float(const TensorView& view, int64_t count, const char* what);
/// @throws ShapeError unless `view` is a float32 matrix with these columns and at least these rows
void check_matrix(const TensorView& view, int64_t rows, int64_t cols, const char* what);
/// @throws ShapeError unless `view` has `count` float32 elements in one dimension
void check_vector(const TensorView& view, int64_t count, const char* what);
/// @throws ShapeError unless keys and values are (pages, kv_heads, page_tokens, head_dim) float32
/// with even head_dim
void check_cache(const KvLayerView& cache, int heads, const char* what);
/// The values of a row descriptor. @throws ShapeError unless it holds `count` int32
const int32_t* row_data(const TensorView& view, int64_t count, const char* what);

}  // namespace tandem
