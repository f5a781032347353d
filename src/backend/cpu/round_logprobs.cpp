#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/round_math.h"

namespace tandem {
namespace {

/// The `top` largest of x and their ids, descending, of equal ones the lower id first.
void largest(const float* x, int64_t n, int top, const CpuKernels& kernels, int32_t* ids,
             float* values) {
  int count = 0;
  for (int64_t first = 0; first < n; first += round::kBlock) {
    const int64_t last = std::min(first + round::kBlock, n);
    if (count == top && !(kernels.max(x + first, last - first) > values[top - 1])) continue;
    for (int64_t i = first; i < last; ++i) {
      if (count == top && !(x[i] > values[top - 1])) continue;
      int place = count < top ? count++ : top - 1;
      for (; place > 0 && x[i] > values[place - 1]; --place) {
        values[place] = values[place - 1];
        ids[place] = ids[place - 1];
      }
      values[place] = x[i];
      ids[place] = static_cast<int32_t>(i);
    }
  }
}

}  // namespace

void CpuBackend::log_probabilities(TensorView logits, const int32_t* ids, int top, float* logprobs,
                                   int32_t* top_ids, float* top_logprobs, float* logsumexp,
                                   Stream&) {
  if (logits.dtype() != DType::kF32 || logits.shape().rank() != 2 || top < 0 ||
      top > logits.dim(1)) {
    throw ShapeError("log_probabilities: the top " + std::to_string(top) + " of " +
                     std::string(name_of(logits.dtype())) + " logits " +
                     logits.shape().to_string());
  }
  const int64_t rows = logits.dim(0), n = logits.dim(1);
  const auto compute_row = [&](int worker, int64_t r) {
    const float* x = logits.as<float>() + r * n;
    const float shift = kernels_.max(x, n);
    const float sum = kernels_.exp_sum(x, shift, 1.0f, n, scratch(worker, static_cast<size_t>(n)));
    const float log_sum = shift + std::log(sum);
    logsumexp[r] = log_sum;
    if (ids != nullptr) logprobs[r] = x[ids[r]] - log_sum;
    if (top == 0) return;
    float* values = top_logprobs + r * top;
    largest(x, n, top, kernels_, top_ids + r * top, values);
    for (int i = 0; i < top; ++i) values[i] -= log_sum;
  };
  if (rows < 2 || rows * n < round::kParallelElements) {
    for (int64_t r = 0; r < rows; ++r) compute_row(0, r);
    return;
  }
  pool_.run([&](int worker) {
    const WorkRange range = split_range(rows, worker, pool_.size());
    for (int64_t r = range.begin; r < range.end; ++r) compute_row(worker, r);
  });
}

}  // namespace tandem
