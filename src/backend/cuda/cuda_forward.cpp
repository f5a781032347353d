#include <cuda_runtime_api.h>

#include <string>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/packed_weight.h"
#include "backend/cuda/prefill_workspace.h"
#include "kernels/capability.h"
#include "kernels/collective.h"
#include "tandem/error.h"

namespace tandem {
namespace {

[[noreturn]] void fail(const TensorView& view, const char* what, const std::string& expected) {
  throw ShapeError(std::string(what) + " is " + std::string(name_of(view.dtype())) + " " +
                   view.shape().to_string() + ", expected " + expected);
}

/// A matrix of at least `rows` rows, float32 or (where `both`) bfloat16.
kernels::Element element_of(const TensorView& view, int64_t rows, int64_t cols, bool both,
                            const char* what) {
  const bool type = view.dtype() == DType::kF32 || (both && view.dtype() == DType::kBF16);
  if (!type || view.shape().rank() != 2 || view.dim(0) < rows || view.dim(1) != cols) {
    fail(view, what,
         std::string(both ? "float32 or bfloat16" : "float32") + " (" + std::to_string(rows) +
             " or more, " + std::to_string(cols) + ")");
  }
  return view.dtype() == DType::kF32 ? kernels::Element::kF32 : kernels::Element::kBF16;
}

void check_activations(const TensorView& view, int64_t rows, int64_t cols, const char* what) {
  if (view.dtype() != DType::kBF16 || view.shape().rank() != 2 || view.dim(0) < rows ||
      view.dim(1) != cols) {
    fail(view, what,
         "bfloat16 (" + std::to_string(rows) + " or more, " + std::to_string(cols) + ")");
  }
}

void check_vector(const TensorView& view, int64_t count, const char* what) {
  if (view.dtype() != DType::kF32 || view.count() != count) {
    fail(view, what, "float32 (" + std::to_string(count) + ")");
  }
}

const int32_t* row_data(const TensorView& view, int64_t count, const char* what) {
  if (view.dtype() != DType::kI32 || view.count() < count) {
    fail(view, what, std::to_string(count) + " or more int32 elements");
  }
  return view.as<const int32_t>();
}

kernels::CacheArgs cache_args(const KvLayerView& cache, const char* what) {
  const Shape& shape = cache.keys.shape();
  const bool fits = cache.keys.dtype() == DType::kBF16 && cache.values.dtype() == DType::kBF16 &&
                    shape == cache.values.shape() && shape.rank() == 4 &&
                    shape[1] == cache.kv_heads && shape[2] == cache.page_tokens &&
                    shape[3] == cache.head_dim && cache.kv_heads > 0 && cache.page_tokens > 0;
  if (!fits) {
    throw ShapeError(std::string(what) + ": keys are " + std::string(name_of(cache.keys.dtype())) +
                     " " + shape.to_string() + ", values " + cache.values.shape().to_string() +
                     ", expected bfloat16 (pages, " + std::to_string(cache.kv_heads) + ", " +
                     std::to_string(cache.page_tokens) + ", " + std::to_string(cache.head_dim) +
                     ")");
  }
  if (!attention_takes(DeviceKind::kCuda, cache.head_dim)) {
    throw ShapeError(std::string(what) + ": head_dim " + std::to_string(cache.head_dim) +
                     " has no CUDA kernel");
  }
  return {.keys = cache.keys.data(),
          .values = cache.values.data(),
          .page_table = cache.page_table,
          .max_pages = cache.max_pages,
          .page_tokens = cache.page_tokens,
          .kv_heads = cache.kv_heads,
          .head_dim = cache.head_dim};
}

}  // namespace

void CudaBackend::embed(const Rows& rows, const WeightView& table, TensorView hidden,
                        Stream& stream) {
  element_of(hidden, rows.count, table.cols, false, "embed: hidden");
  const auto* tokens = row_data(rows.tokens, rows.count, "embed: tokens");
  if (table.segment_count != 1) throw ShapeError("embed: the table must have one segment");
  if (rows.count == 0) return;
  const WeightView::Segment& segment = table.segments[0];
  check(kernels::embed(tokens, rows.count, segment.data, segment.scales,
                       packed_format(segment.format), table.first_row, table.rows, table.cols,
                       hidden.as<float>(), launch(stream)),
        "embed");
}

void CudaBackend::rms_norm(TensorView x, TensorView weight, float eps, TensorView out,
                           Stream& stream) {
  const int64_t rows = x.dim(0), cols = x.dim(1);
  element_of(x, rows, cols, false, "rms_norm: x");
  const kernels::Element type = element_of(out, rows, cols, true, "rms_norm: out");
  check_vector(weight, cols, "rms_norm: weight");
  if (rows == 0) return;
  check(kernels::rms_norm(x.as<float>(), weight.as<float>(), eps, static_cast<int>(rows), cols,
                          out.data(), type, launch(stream)),
        "rms_norm");
}

void CudaBackend::matmul(TensorView x, const WeightView& weight, Epilogue epilogue, TensorView out,
                         Stream& stream) {
  multiply(x, weight, epilogue, out, {}, stream);
}

void CudaBackend::matmul_add_norm(TensorView x, const WeightView& weight, TensorView hidden,
                                  TensorView norm_weight, const NormedRows& normed,
                                  Stream& stream) {
  const int64_t rows = x.dim(0);
  if (rows > kernels::kMaxDecodeRows) {
    multiply(x, weight, Epilogue::kAdd, hidden, {}, stream);
    rms_norm(hidden, norm_weight, normed.eps, normed.values, stream);
    return;
  }
  if (weight.paired || weight.segment_count != 1) {
    throw ShapeError("matmul_add_norm: the weight must have one segment");
  }
  static_assert(NormedRows::kPart == kernels::kPanelOutputs);
  check_vector(norm_weight, weight.rows, "matmul_add_norm: norm_weight");
  check_activations(normed.values, rows, weight.rows, "matmul_add_norm: normed");
  element_of(normed.squares, rows, NormedRows::parts(weight.rows), false,
             "matmul_add_norm: squares");
  kernels::MatmulArgs args;
  args.epilogue = kernels::MatmulEpilogue::kAddNorm;
  args.norm_weight = norm_weight.as<float>();
  args.normed = normed.values.data();
  args.squares_out = normed.squares.as<float>();
  multiply(x, weight, Epilogue::kAdd, hidden, args, stream);
}

void CudaBackend::matmul_normed(const NormedRows& x, const WeightView& weight, Epilogue epilogue,
                                TensorView out, Stream& stream) {
  kernels::MatmulArgs args;
  const int64_t rows = x.values.dim(0);
  if (rows <= kernels::kMaxDecodeRows && !x.squares.empty()) {
    element_of(x.squares, rows, NormedRows::parts(weight.cols), false, "matmul_normed: squares");
    args.squares = x.squares.as<float>();
    args.eps = x.eps;
  }
  multiply(x.values, weight, epilogue, out, args, stream);
}

void CudaBackend::multiply(TensorView x, const WeightView& weight, Epilogue epilogue,
                           TensorView out, kernels::MatmulArgs args, Stream& stream) {
  const bool gate = epilogue == Epilogue::kSiluGate;
  if (gate && !weight.paired) {
    throw ShapeError("matmul: the gate epilogue needs a paired weight");
  }
  if (!gate && weight.paired) {
    throw ShapeError("matmul: a paired weight is only multiplied with the gate epilogue");
  }
  const int64_t rows = x.dim(0);
  const int64_t out_cols = gate ? weight.rows / 2 : weight.rows;
  args.x = x.data();
  args.x_type = element_of(x, rows, weight.cols, true, "matmul: x");
  args.rows = static_cast<int>(rows);
  args.cols = weight.cols;
  args.bias = weight.bias;
  args.bias_up = out_cols;
  if (args.epilogue != kernels::MatmulEpilogue::kAddNorm) {
    args.epilogue = epilogue == Epilogue::kAdd ? kernels::MatmulEpilogue::kAdd
                    : gate                     ? kernels::MatmulEpilogue::kSiluGate
                                               : kernels::MatmulEpilogue::kStore;
  }
  args.out = out.data();
  args.out_type = element_of(out, rows, out_cols, epilogue != Epilogue::kAdd, "matmul: out");
  args.out_stride = out_cols;
  if (rows == 0) return;

  const int segments = weight.paired ? 1 : weight.segment_count;
  int64_t column = 0;
  for (int first = 0; first < segments;) {
    const WeightView::Segment& run = weight.segments[static_cast<size_t>(first)];
    args.format = packed_format(run.format);
    args.panels = run.data;
    args.scales = run.scales;
    args.segment_count = 0;
    args.panel_count = 0;
    for (; first < segments; ++first) {
      const WeightView::Segment& segment = weight.segments[static_cast<size_t>(first)];
      if (packed_format(segment.format) != args.format) break;
      args.segment_panel[args.segment_count] = args.panel_count;
      args.segment_column[args.segment_count] = column;
      args.segment_rows[args.segment_count] = segment.rows;
      ++args.segment_count;
      args.panel_count += weight.paired ? kernels::paired_panels_of(segment.rows)
                                        : kernels::panels_of(segment.rows);
      column += segment.rows;
    }
    if (rows <= kMostPackedRows) {
      multiply_packed(args, stream);
    } else if (!multiply_by_library(args, stream)) {
      check(kernels::matmul_prefill(args, launch(stream)), "matmul");
    }
  }
}

void CudaBackend::rope_angles(const Rows& rows, TensorView inv_freq, TensorView angles,
                              Stream& stream) {
  const int64_t half = inv_freq.count();
  check_vector(inv_freq, half, "rope_angles: inv_freq");
  element_of(angles, rows.count, 2 * half, false, "rope_angles: angles");
  const auto* positions = row_data(rows.positions, rows.count, "rope_angles: positions");
  if (rows.count == 0) return;
  check(kernels::rope_angles(positions, inv_freq.as<float>(), rows.count, static_cast<int>(half),
                             angles.as<float>(), launch(stream)),
        "rope_angles");
}

void CudaBackend::rope_and_append(const Rows& rows, TensorView qkv, TensorView angles,
                                  TensorView q_norm, TensorView k_norm, float eps, int heads,
                                  const KvLayerView& cache, Stream& stream) {
  kernels::RopeArgs args;
  args.cache = cache_args(cache, "rope_and_append");
  const int64_t width = (heads + 2 * int64_t{cache.kv_heads}) * cache.head_dim;
  check_activations(qkv, rows.count, width, "rope_and_append: qkv");
  element_of(angles, rows.count, cache.head_dim, false, "rope_and_append: angles");
  if (!q_norm.empty()) check_vector(q_norm, cache.head_dim, "rope_and_append: q_norm");
  if (!k_norm.empty()) check_vector(k_norm, cache.head_dim, "rope_and_append: k_norm");
  args.slots = row_data(rows.slots, rows.count, "rope_and_append: slots");
  args.sequences = row_data(rows.sequences, rows.count, "rope_and_append: sequences");
  args.rows = rows.count;
  args.heads = heads;
  args.qkv = qkv.data();
  args.angles = angles.as<float>();
  args.q_norm = q_norm.as<float>();
  args.k_norm = k_norm.as<float>();
  args.eps = eps;
  if (rows.count == 0) return;
  check(kernels::rope_and_append(args, launch(stream)), "rope_and_append");
}

void CudaBackend::append_and_attend(const Rows& rows, TensorView qkv, TensorView angles,
                                    TensorView q_norm, TensorView k_norm, float eps, int heads,
                                    float scale, const KvLayerView& cache, TensorView out,
                                    Stream& stream) {
  const bool in_one = rows.count <= kernels::kMaxDecodeRows && q_norm.empty() == k_norm.empty() &&
                      kernels::attention_decode_appends(cache.head_dim);
  if (!in_one) {
    rope_and_append(rows, qkv, angles, q_norm, k_norm, eps, heads, cache, stream);
    attend(rows, qkv, {}, heads, scale, cache, out, stream);
    return;
  }
  element_of(angles, rows.count, cache.head_dim, false, "append_and_attend: angles");
  if (!q_norm.empty()) {
    check_vector(q_norm, cache.head_dim, "append_and_attend: q_norm");
    check_vector(k_norm, cache.head_dim, "append_and_attend: k_norm");
  }
  kernels::AttentionArgs todo;
  todo.angles = angles.as<float>();
  todo.q_norm = q_norm.as<float>();
  todo.k_norm = k_norm.as<float>();
  todo.eps = eps;
  attend(rows, qkv, todo, heads, scale, cache, out, stream);
}

void CudaBackend::attention(const Rows& rows, TensorView qkv, int heads, float scale,
                            const KvLayerView& cache, TensorView out, Stream& stream) {
  attend(rows, qkv, {}, heads, scale, cache, out, stream);
}

void CudaBackend::attend(const Rows& rows, TensorView qkv, kernels::AttentionArgs args, int heads,
                         float scale, const KvLayerView& cache, TensorView out, Stream& stream) {
  args.cache = cache_args(cache, "attention");
  const int64_t width = (heads + 2 * int64_t{cache.kv_heads}) * cache.head_dim;
  check_activations(qkv, rows.count, width, "attention: qkv");
  check_activations(out, rows.count, int64_t{heads} * cache.head_dim, "attention: out");
  if (heads <= 0 || heads % cache.kv_heads != 0) {
    throw ShapeError("attention: " + std::to_string(heads) + " heads over " +
                     std::to_string(cache.kv_heads) + " kv heads");
  }
  if (heads > kernels::kMostAttentionHeads) {
    throw ShapeError("attention: " + std::to_string(heads) + " heads; the CUDA kernel takes " +
                     std::to_string(kernels::kMostAttentionHeads));
  }
  args.slots = row_data(rows.slots, rows.count, "attention: slots");
  args.sequences = row_data(rows.sequences, rows.count, "attention: sequences");
  args.rows = rows.count;
  args.heads = heads;
  args.scale = scale;
  args.qkv = qkv.data();
  args.out = out.data();
  if (rows.count == 0) return;
  if (rows.count > kernels::kMaxDecodeRows) {
    check(kernels::attention_prefill(args, launch(stream)), "attention");
    return;
  }
  auto& target = static_cast<CudaStream&>(stream);
  args.finished = static_cast<int*>(
      target.scratch(Scratch::kAttentionCounts, kernels::kMostAttentionHeads * sizeof(int)));
  args.partials = attention_partials(heads, args.cache, target);
  check(kernels::attention_decode(args, launch(stream)), "attention");
}

float* CudaBackend::attention_partials(int heads, const kernels::CacheArgs& cache,
                                       CudaStream& stream) const {
  const auto floats = static_cast<size_t>(
      kernels::attention_partial_floats(heads, cache.head_dim, cache.max_pages * cache.page_tokens,
                                        kernels::blocks_of_part(capability_)));
  const TensorView& lent = stream.workspace();
  void* const partials = lent.bytes() >= floats * sizeof(float)
                             ? lent.data()
                             : stream.scratch(Scratch::kAttentionPartials, floats * sizeof(float));
  return static_cast<float*>(partials);
}

void CudaBackend::add(TensorView x, TensorView out, Stream& stream) {
  check_vector(x, x.count(), "add: x");
  check_vector(out, x.count(), "add: out");
  if (x.count() == 0) return;
  check(kernels::add(x.as<float>(), out.as<float>(), x.count(), launch(stream)), "add");
}

void CudaBackend::add_parts(TensorView parts, TensorView out, Stream& stream) {
  const int64_t count = out.count(), ranks = count == 0 ? 0 : parts.count() / count;
  check_vector(parts, ranks * count, "add_parts: parts");
  check_vector(out, count, "add_parts: out");
  if (ranks == 0) return;
  check(kernels::add_parts(parts.as<float>(), static_cast<int>(ranks), out.as<float>(), count,
                           launch(stream)),
        "add_parts");
}

kernels::NormArgs CudaBackend::norm_args(const TensorView& hidden, const TensorView& norm_weight,
                                         const NormedRows& normed) {
  if (hidden.shape().rank() != 2 || hidden.dim(1) % NormedRows::kPart != 0) {
    fail(hidden, "sum with a norm: hidden",
         "(rows, a multiple of " + std::to_string(NormedRows::kPart) + ")");
  }
  const int64_t rows = hidden.dim(0), cols = hidden.dim(1);
  if (rows > kernels::kMaxDecodeRows) {
    fail(hidden, "sum with a norm: hidden",
         "at most " + std::to_string(kernels::kMaxDecodeRows) + " rows");
  }
  element_of(hidden, rows, cols, false, "sum with a norm: hidden");
  check_vector(norm_weight, cols, "sum with a norm: norm_weight");
  check_activations(normed.values, rows, cols, "sum with a norm: normed");
  element_of(normed.squares, rows, NormedRows::parts(cols), false, "sum with a norm: squares");
  return {.weight = norm_weight.as<float>(),
          .normed = normed.values.data(),
          .squares = normed.squares.as<float>(),
          .cols = static_cast<int>(cols)};
}

void CudaBackend::add_parts_norm(TensorView parts, TensorView hidden, TensorView norm_weight,
                                 const NormedRows& normed, Stream& stream) {
  const kernels::NormArgs norm = norm_args(hidden, norm_weight, normed);
  const int64_t count = hidden.count(), ranks = count == 0 ? 0 : parts.count() / count;
  check_vector(parts, ranks * count, "add_parts_norm: parts");
  if (ranks == 0) return;
  check(kernels::add_parts_norm(parts.as<float>(), static_cast<int>(ranks), hidden.as<float>(),
                                count, norm, launch(stream)),
        "add_parts_norm");
}

}  // namespace tandem
