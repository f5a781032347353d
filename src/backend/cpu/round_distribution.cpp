#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/round_math.h"
#include "backend/cpu/round_transform.h"

namespace tandem {
namespace {

using round::AdjustedLogits;

/// Columns that are adjusted at a time on the stack, where a whole row need not be stored.
constexpr int64_t kStackColumns = 512;

std::span<const int32_t> drafted_before(const RoundView& round, const round::RowOf& row,
                                        int prefix) {
  if (round.drafts == nullptr) return {};
  const int32_t* drafts = round.drafts + int64_t{row.sequence} * round.max_drafts;
  return {drafts, static_cast<size_t>(prefix + row.index)};
}

int64_t first_equal(const float* x, int64_t n, float value) {
  for (int64_t first = 0; first < n; first += round::kBlock) {
    const int64_t last = std::min(first + round::kBlock, n);
    int found = 0;
    for (int64_t i = first; i < last; ++i) found |= static_cast<int>(x[i] == value);
    if (found == 0) continue;
    return std::find(x + first, x + last, value) - x;
  }
  return 0;
}

/// A row's largest logit and its id; NaN where the row has nothing else.
struct Choice {
  float logit;
  int32_t id;
};

Choice largest_of(const float* x, int64_t n, const CpuKernels& kernels) {
  const int64_t id = first_equal(x, n, kernels.max(x, n));
  return {x[id], static_cast<int32_t>(id)};
}

int64_t argmax_adjusted(const AdjustedLogits& logits, int64_t n, const CpuKernels& kernels) {
  alignas(64) float columns[kStackColumns];
  float best = -std::numeric_limits<float>::infinity();
  int64_t best_id = 0;
  for (int64_t first = 0; first < n; first += kStackColumns) {
    const int64_t count = std::min(kStackColumns, n - first);
    logits.write(first, first + count, columns);
    const float largest = kernels.max(columns, count);
    if (!(largest > best)) continue;
    best = largest;
    best_id = first + first_equal(columns, count, largest);
  }
  return best_id;
}

/// The transforms behind the penalties, and the softmax, of n logits; `probs` may be `logits`.
void transformed_softmax(const float* logits, int64_t n, const SamplingTransform& transform,
                         const CpuKernels& kernels, float* scratch, float* probs) {
  // A temperature so low that its inverse overflows still means 0 * finite for the largest logit.
  const float inverse_temperature =
      std::min(1.0f / transform.temperature, std::numeric_limits<float>::max());
  if (transform.top_k > 0 && transform.top_k < n) {
    round::keep_top_k(logits, n, transform.top_k, scratch, probs);
    logits = probs;
  }
  float sum = kernels.exp_sum(logits, kernels.max(logits, n), inverse_temperature, n, probs);
  const bool nucleus = transform.top_p < 1.0f;
  const bool above_min = transform.min_p > 0.0f;
  if (nucleus || above_min) {
    const float largest = kernels.max(probs, n);
    if (nucleus) round::keep_top_p(probs, n, transform.top_p, largest, scratch);
    if (above_min) round::keep_min_p(probs, n, transform.min_p, largest);
    sum = round::lane_sum(probs, n);
  }
  kernels.scale(probs, 1.0f / sum, n, probs);
}

size_t scratch_floats(int64_t n, const SamplingTransform& transform) {
  int64_t floats = 0;
  if (transform.top_k > 0) floats = round::top_k_scratch_floats(n, transform.top_k);
  if (transform.top_p < 1.0f) floats = std::max<int64_t>(floats, 2 * n);
  return static_cast<size_t>(floats);
}

}  // namespace

void CpuBackend::argmax(const RoundView& round, TensorView logits,
                        const SamplingTransform& transform, int prefix, const uint8_t* allowed,
                        int32_t* ids, Stream&) {
  round::require_matrix(round, logits, "argmax: logits");
  round::require_penalty_buffers(round, transform);
  const int64_t rows = logits.dim(0), columns = logits.dim(1);
  const int64_t n = std::min<int64_t>(columns, round.vocab);
  pool_.for_each(rows, rows * n >= round::kParallelElements, [&](int64_t r) {
    const auto row = round::row_of(r, rows, round.sequences);
    const float* x = logits.as<float>() + r * columns;
    const AdjustedLogits adjusted(round, row.sequence, x, transform, allowed,
                                  drafted_before(round, row, prefix));
    ids[r] = static_cast<int32_t>(adjusted.changes() ? argmax_adjusted(adjusted, n, kernels_)
                                                     : first_equal(x, n, kernels_.max(x, n)));
  });
}

void CpuBackend::share_argmax(TensorView logits, int first_id, TensorView choices, Stream&) {
  check_share(logits, choices);
  const int64_t rows = logits.dim(0), n = logits.dim(1);
  static_assert(sizeof(Choice) == 2 * sizeof(int32_t));
  pool_.for_each(rows, rows * n >= round::kParallelElements, [&](int64_t r) {
    Choice choice = largest_of(logits.as<float>() + r * n, n, kernels_);
    choice.id += first_id;
    std::memcpy(choices.as<int32_t>() + 2 * r, &choice, sizeof(choice));
  });
}

void CpuBackend::join_argmax(TensorView choices, int32_t* ids, Stream&) {
  check_choices(choices);
  const int64_t shares = choices.dim(0), rows = choices.dim(1);
  for (int64_t r = 0; r < rows; ++r) {
    Choice best{}, next{};
    for (int64_t share = 0; share < shares; ++share) {
      std::memcpy(&next, choices.as<int32_t>() + 2 * (share * rows + r), sizeof(next));
      const bool better = next.logit > best.logit || std::isnan(best.logit);
      if (share == 0 || (better && !std::isnan(next.logit))) best = next;
    }
    ids[r] = best.id;
  }
}

void CpuBackend::distribution(const RoundView& round, TensorView logits,
                              const SamplingTransform& transform, int prefix,
                              const uint8_t* allowed, TensorView probs, Stream&) {
  round::require_matrix(round, logits, "distribution: logits");
  round::require_matrix(round, probs, "distribution: probs");
  round::require_penalty_buffers(round, transform);
  const int64_t rows = logits.dim(0), columns = logits.dim(1);
  if (probs.dim(0) != rows || probs.dim(1) != round.vocab) {
    throw ShapeError("distribution: probs " + probs.shape().to_string() + " for logits " +
                     logits.shape().to_string() + " and a vocabulary of " +
                     std::to_string(round.vocab));
  }
  const int64_t n = std::min<int64_t>(columns, round.vocab);
  const auto compute_row = [&](int worker, int64_t r) {
    const auto row = round::row_of(r, rows, round.sequences);
    const float* x = logits.as<float>() + r * columns;
    float* p = probs.as<float>() + r * round.vocab;
    const AdjustedLogits adjusted(round, row.sequence, x, transform, allowed,
                                  drafted_before(round, row, prefix));
    if (adjusted.changes()) {
      adjusted.write(0, n, p);
      x = p;
    }
    transformed_softmax(x, n, transform, kernels_, scratch(worker, scratch_floats(n, transform)),
                        p);
    std::fill(p + n, p + round.vocab, 0.0f);
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
