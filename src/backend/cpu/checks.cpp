#include "backend/cpu/checks.h"

#include <string>

#include "tandem/error.h"

namespace tandem {
namespace {

[[noreturn]] void fail(const TensorView& view, const char* what, const std::string& expected) {
  throw ShapeError(std::string(what) + " is " + std::string(name_of(view.dtype())) + " " +
                   view.shape().to_string() + ", expected " + expected);
}

}  // namespace

void check_float(const TensorView& view, int64_t count, const char* what) {
  if (view.dtype() != DType::kF32 || view.count() != count) {
    fail(view, what, std::to_string(count) + " float32 elements");
  }
}

void check_matrix(const TensorView& view, int64_t rows, int64_t cols, const char* what) {
  if (view.dtype() != DType::kF32 || view.shape().rank() != 2 || view.dim(0) < rows ||
      view.dim(1) != cols) {
    fail(view, what,
         "float32 (" + std::to_string(rows) + " or more, " + std::to_string(cols) + ")");
  }
}

void check_vector(const TensorView& view, int64_t count, const char* what) {
  if (view.dtype() != DType::kF32 || view.shape().rank() != 1 || view.dim(0) != count) {
    fail(view, what, "float32 (" + std::to_string(count) + ")");
  }
}

void check_cache(const KvLayerView& cache, int heads, const char* what) {
  const Shape& shape = cache.keys.shape();
  const bool fits = cache.keys.dtype() == DType::kF32 && cache.values.dtype() == DType::kF32 &&
                    shape == cache.values.shape() && shape.rank() == 4 &&
                    shape[1] == cache.kv_heads && shape[2] == cache.page_tokens &&
                    shape[3] == cache.head_dim && cache.kv_heads > 0 && cache.page_tokens > 0 &&
                    cache.head_dim > 0 && cache.head_dim % 2 == 0;
  if (!fits) {
    throw ShapeError(std::string(what) + ": keys are " + std::string(name_of(cache.keys.dtype())) +
                     " " + shape.to_string() + ", values " + cache.values.shape().to_string() +
                     ", expected float32 (pages, " + std::to_string(cache.kv_heads) + ", " +
                     std::to_string(cache.page_tokens) + ", " + std::to_string(cache.head_dim) +
                     ") with an even last dimension");
  }
  if (heads <= 0 || heads % cache.kv_heads != 0) {
    throw ShapeError(std::string(what) + ": " + std::to_string(heads) + " query heads for " +
                     std::to_string(cache.kv_heads) + " kv heads");
  }
}

const int32_t* row_data(const TensorView& view, int64_t count, const char* what) {
  if (view.dtype() != DType::kI32 || view.count() < count) {
    fail(view, what, std::to_string(count) + " or more int32 elements");
  }
  return view.as<const int32_t>();
}

}  // namespace tandem
