#include <algorithm>

#include "backend/cpu/checks.h"
#include "backend/cpu/cpu_backend.h"
#include "tandem/error.h"

namespace tandem {
namespace {

// Rows of one sequence that read a part of the cache together while it is in the first-level cache.
constexpr int kRowBlock = 16;

}  // namespace

void CpuBackend::attention(const Rows& rows, TensorView qkv, int heads, float scale,
                           const KvLayerView& cache, TensorView out, Stream&) {
  const int64_t head_dim = cache.head_dim;
  const int64_t width = (heads + 2 * int64_t{cache.kv_heads}) * head_dim;
  check_cache(cache, heads, "attention");
  check_matrix(qkv, rows.count, width, "attention: qkv");
  check_matrix(out, rows.count, heads * head_dim, "attention: out");
  const auto* slots = row_data(rows.slots, rows.count, "attention: slots");
  const auto* sequences = row_data(rows.sequences, rows.count, "attention: sequences");
  const int group = heads / cache.kv_heads;
  const int64_t head_stride = cache.page_tokens * head_dim;

  const auto run_unit = [&](int head, int first_row, float* scratch) {
    const int end = std::min(first_row + kRowBlock, rows.count);
    for (int begin = first_row; begin < end;) {
      const int32_t sequence = sequences[begin];
      int count = 1;
      while (begin + count < end && sequences[begin + count] == sequence) ++count;
      const int64_t q_column = int64_t{head} * group * head_dim;
      kernels_.attention({.q = qkv.as<float>() + begin * width + q_column,
                          .q_stride = width,
                          .out = out.as<float>() + begin * heads * head_dim + q_column,
                          .out_stride = heads * head_dim,
                          .slots = slots + begin,
                          .rows = count,
                          .group = group,
                          .head_dim = cache.head_dim,
                          .scale = scale,
                          .keys = cache.keys.as<float>() + head * head_stride,
                          .values = cache.values.as<float>() + head * head_stride,
                          .page_stride = cache.kv_heads * head_stride,
                          .pages = cache.page_table + int64_t{sequence} * cache.max_pages,
                          .page_tokens = cache.page_tokens,
                          .scratch = scratch});
      begin += count;
    }
  };
  // Units in turn, heads first: a thread reads the same heads' cache at every token, and when there
  // are many blocks of rows (a prompt) each thread gets early and late ones.
  const int blocks = (rows.count + kRowBlock - 1) / kRowBlock;
  const size_t scratch_floats =
      attention_scratch_floats(std::min(rows.count, kRowBlock), group, cache.head_dim);
  for (int worker = 0; worker < pool_.size(); ++worker) scratch(worker, scratch_floats);
  pool_.run([&](int worker) {
    float* work = scratch(worker, scratch_floats);
    for (int unit = worker; unit < blocks * cache.kv_heads; unit += pool_.size()) {
      run_unit(unit % cache.kv_heads, unit / cache.kv_heads * kRowBlock, work);
    }
  });
}

}  // namespace tandem
