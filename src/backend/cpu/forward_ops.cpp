#include <algorithm>
#include <cmath>
#include <string>

#include "backend/cpu/checks.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/packing.h"
#include "tandem/error.h"

namespace tandem {
namespace {

// An op is split over the threads when it has at least this much work: a barrier costs about as
// much as this much arithmetic on one core.
constexpr int64_t kParallelMultiplyAdds = 32 * 1024;
constexpr int64_t kParallelElements = 8 * 1024;
constexpr int64_t kParallelRope = 512;

}  // namespace

void CpuBackend::embed(const Rows& rows, const WeightView& table, TensorView hidden, Stream&) {
  check_matrix(hidden, rows.count, table.cols, "embed: hidden");
  const auto* tokens = row_data(rows.tokens, rows.count, "embed: tokens");
  auto* out = hidden.as<float>();
  const PanelMap map(table, pool_.size());
  pool_.for_each(rows.count, rows.count * table.cols >= kParallelElements, [&](int64_t r) {
    float* row = out + r * table.cols;
    const int64_t table_row = tokens[r] - table.first_row;
    if (table_row >= 0 && table_row < table.rows) {
      unpack_row(table, map, table_row, row);
    } else {
      std::fill_n(row, table.cols, 0.0f);
    }
  });
}

void CpuBackend::rms_norm(TensorView x, TensorView weight, float eps, TensorView out, Stream&) {
  const int64_t rows = x.dim(0), n = x.dim(1);
  check_matrix(x, rows, n, "rms_norm: x");
  check_matrix(out, rows, n, "rms_norm: out");
  check_vector(weight, n, "rms_norm: weight");
  const auto* in = x.as<float>();
  auto* to = out.as<float>();
  pool_.for_each(rows, rows * n >= kParallelElements, [&](int64_t r) {
    kernels_.rms_norm(in + r * n, weight.as<float>(), eps, n, to + r * n);
  });
}

void CpuBackend::matmul(TensorView x, const WeightView& weight, Epilogue epilogue, TensorView out,
                        Stream&) {
  const bool silu_gate = epilogue == Epilogue::kSiluGate;
  if (silu_gate && !weight.paired) {
    throw ShapeError("matmul: the gate epilogue needs a paired weight");
  }
  const int64_t rows = x.dim(0);
  const int64_t out_cols = silu_gate ? weight.rows / 2 : weight.rows;
  check_matrix(x, rows, weight.cols, "matmul: x");
  check_matrix(out, rows, out_cols, "matmul: out");

  const PanelMap map(weight, pool_.size());
  const auto run_share = [&](int worker) {
    int64_t first_column = 0;
    for (int run = 0; run < map.runs(); ++run) {
      const WeightView::Segment& segment = weight.segments[static_cast<size_t>(run)];
      const WorkRange panels = map.share(run, worker);
      if (panels.begin < panels.end) {
        const MatmulArgs args{.x = x.as<float>(),
                              .rows = rows,
                              .cols = weight.cols,
                              .panels = segment.data,
                              .scales = segment.scales,
                              .bias = weight.bias == nullptr ? nullptr : weight.bias + first_column,
                              .out = out.as<float>() + first_column,
                              .out_stride = out_cols,
                              .outputs = segment.rows,
                              .first_panel = panels.begin,
                              .last_panel = panels.end,
                              .paired = weight.paired,
                              .add = epilogue == Epilogue::kAdd,
                              .silu_gate = silu_gate};
        switch (segment.format) {
          case WeightFormat::kBF16:
            kernels_.matmul_bf16(args);
            break;
          case WeightFormat::kF16:
            kernels_.matmul_f16(args);
            break;
          case WeightFormat::kFp8E4M3:
            kernels_.matmul_fp8(args);
            break;
          case WeightFormat::kInt4Group128:
            kernels_.matmul_int4(args);
            break;
          default:
            kernels_.matmul_f32(args);
        }
      }
      first_column += segment.rows;
    }
  };
  if (rows * weight.rows * weight.cols < kParallelMultiplyAdds) {
    for (int worker = 0; worker < pool_.size(); ++worker) run_share(worker);
  } else {
    pool_.run(run_share);
  }
}

void CpuBackend::matmul_add_norm(TensorView x, const WeightView& weight, TensorView hidden,
                                 TensorView norm_weight, const NormedRows& normed, Stream& stream) {
  matmul(x, weight, Epilogue::kAdd, hidden, stream);
  rms_norm(hidden, norm_weight, normed.eps, normed.values, stream);
}

void CpuBackend::matmul_normed(const NormedRows& x, const WeightView& weight, Epilogue epilogue,
                               TensorView out, Stream& stream) {
  matmul(x.values, weight, epilogue, out, stream);
}

void CpuBackend::rope_angles(const Rows& rows, TensorView inv_freq, TensorView angles, Stream&) {
  const int64_t half = inv_freq.count();
  check_vector(inv_freq, half, "rope_angles: inv_freq");
  check_matrix(angles, rows.count, 2 * half, "rope_angles: angles");
  const auto* positions = row_data(rows.positions, rows.count, "rope_angles: positions");
  const auto* frequencies = inv_freq.as<float>();
  auto* out = angles.as<float>();
  pool_.for_each(rows.count, rows.count * half >= kParallelElements, [&](int64_t r) {
    float* cosine = out + r * 2 * half;
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(positions[r]) * frequencies[i];
      cosine[i] = std::cos(angle);
      cosine[half + i] = std::sin(angle);
    }
  });
}

void CpuBackend::rope_and_append(const Rows& rows, TensorView qkv, TensorView angles,
                                 TensorView q_norm, TensorView k_norm, float eps, int heads,
                                 const KvLayerView& cache, Stream&) {
  const int64_t head_dim = cache.head_dim;
  const int64_t width = (heads + 2 * int64_t{cache.kv_heads}) * head_dim;
  check_matrix(qkv, rows.count, width, "rope_and_append: qkv");
  check_matrix(angles, rows.count, head_dim, "rope_and_append: angles");
  check_cache(cache, heads, "rope_and_append");
  if (!q_norm.empty()) check_vector(q_norm, head_dim, "rope_and_append: q_norm");
  if (!k_norm.empty()) check_vector(k_norm, head_dim, "rope_and_append: k_norm");
  const auto* slots = row_data(rows.slots, rows.count, "rope_and_append: slots");
  const auto* sequences = row_data(rows.sequences, rows.count, "rope_and_append: sequences");
  const int64_t head_stride = cache.page_tokens * head_dim;
  const int group = heads / cache.kv_heads;

  // A kv head with its query heads goes to the worker that will compute its attention.
  const auto take_head = [&](int64_t row, int kv_head) {
    float* const q = qkv.as<float>() + row * width;
    float* const k = q + (heads + kv_head) * head_dim;
    const float* const v = k + cache.kv_heads * head_dim;
    const auto rotate = [&](float* head, const TensorView& norm) {
      if (!norm.empty()) kernels_.rms_norm(head, norm.as<float>(), eps, head_dim, head);
      kernels_.rotate(head, angles.as<float>() + row * head_dim, head_dim / 2);
    };
    for (int h = kv_head * group; h < (kv_head + 1) * group; ++h) rotate(q + h * head_dim, q_norm);
    rotate(k, k_norm);
    const int32_t slot = slots[row];
    const int64_t page =
        cache.page_table[int64_t{sequences[row]} * cache.max_pages + slot / cache.page_tokens];
    const int64_t begin = (page * cache.kv_heads + kv_head) * head_stride;
    const int64_t t = slot % cache.page_tokens;
    float* const keys = cache.keys.as<float>() + begin;
    for (int64_t d = 0; d < head_dim; ++d) keys[key_offset(t, d, cache.page_tokens)] = k[d];
    std::copy_n(v, head_dim, cache.values.as<float>() + begin + t * head_dim);
  };
  const auto take_heads = [&](int worker, int workers) {
    for (int64_t unit = worker; unit < int64_t{rows.count} * cache.kv_heads; unit += workers) {
      take_head(unit / cache.kv_heads, static_cast<int>(unit % cache.kv_heads));
    }
  };
  if (rows.count * width < kParallelRope) {
    take_heads(0, 1);
  } else {
    pool_.run([&](int worker) { take_heads(worker, pool_.size()); });
  }
}

void CpuBackend::append_and_attend(const Rows& rows, TensorView qkv, TensorView angles,
                                   TensorView q_norm, TensorView k_norm, float eps, int heads,
                                   float scale, const KvLayerView& cache, TensorView out,
                                   Stream& stream) {
  rope_and_append(rows, qkv, angles, q_norm, k_norm, eps, heads, cache, stream);
  attention(rows, qkv, heads, scale, cache, out, stream);
}

void CpuBackend::add(TensorView x, TensorView out, Stream&) {
  check_float(x, x.count(), "add: x");
  check_float(out, x.count(), "add: out");
  const int64_t n = x.count();
  const int64_t blocks = (n + kParallelElements - 1) / kParallelElements;
  pool_.for_each(blocks, blocks > 1, [&](int64_t block) {
    const int64_t begin = block * kParallelElements;
    kernels_.add(x.as<float>() + begin, std::min(kParallelElements, n - begin),
                 out.as<float>() + begin);
  });
}

void CpuBackend::add_parts(TensorView parts, TensorView out, Stream&) {
  const int64_t n = out.count(), ranks = n == 0 ? 0 : parts.count() / n;
  check_float(parts, ranks * n, "add_parts: parts");
  check_float(out, n, "add_parts: out");
  if (ranks == 0) return;
  const float* const part = parts.as<float>();
  float* const to = out.as<float>();
  for (int64_t i = 0; i < n; ++i) {
    float sum = part[i];
    for (int64_t rank = 1; rank < ranks; ++rank) sum += part[rank * n + i];
    to[i] += sum;
  }
}

void CpuBackend::add_parts_norm(TensorView parts, TensorView hidden, TensorView norm_weight,
                                const NormedRows& normed, Stream& stream) {
  add_parts(parts, hidden, stream);
  rms_norm(hidden, norm_weight, normed.eps, normed.values, stream);
}

}  // namespace tandem
