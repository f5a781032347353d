#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "backend/round_view.h"
#include "core/philox.h"
#include "core/tensor_view.h"
#include "tandem/error.h"

namespace tandem::round {

/// Elements that are summed, searched or skipped together.
inline constexpr int64_t kBlock = 64;
/// Rows times columns from which splitting an op over the pool's threads pays for their meeting.
inline constexpr int64_t kParallelElements = 1 << 14;

/// Which sequence a row of logits or probabilities belongs to, and its number within it.
struct RowOf {
  int sequence = 0;
  int index = 0;
};
inline RowOf row_of(int64_t row, int64_t rows, int sequences) {
  const int64_t per_sequence = rows / sequences;
  return {static_cast<int>(row / per_sequence), static_cast<int>(row % per_sequence)};
}

/// @throws ShapeError unless `view` is a dense float32 matrix whose rows split evenly over
/// sequences
inline void require_matrix(const RoundView& round, const TensorView& view, const char* what) {
  if (view.dtype() == DType::kF32 && view.shape().rank() == 2 && round.sequences > 0 &&
      view.dim(0) % round.sequences == 0) {
    return;
  }
  throw ShapeError(std::string(what) + " must be float32 (rows, vocab), rows a multiple of " +
                   std::to_string(round.sequences) + ", not " + std::string(name_of(view.dtype())) +
                   " " + view.shape().to_string());
}

/// The uniform of a sequence at a position: the first two numbers of token block 0 (DESIGN 4).
inline double round_uniform(const RoundView& round, int sequence, int position,
                            RandomPurpose purpose) {
  const PhiloxCounter counter =
      random_counter(position, round.round_base[sequence], 0, purpose, round.streams[sequence]);
  const PhiloxCounter words = philox4x32(counter, round.seeds[sequence]);
  return uniform_open(words[0], words[1]);
}

/// Sum of weight(first) … weight(last - 1) in double precision. The order depends on the length
/// alone: eight lanes, then the lanes as a tree.
template <typename Weight>
double block_sum(const Weight& weight, int64_t first, int64_t last) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = first;
  for (; i + kLanes <= last; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += weight(i + lane);
  }
  for (int lane = 0; i < last; ++i, ++lane) lanes[lane] += weight(i);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/// Sum over [0, n), block after block: the order in which `draw` walks.
template <typename Weight>
double weight_sum(const Weight& weight, int64_t n) {
  double sum = 0;
  for (int64_t first = 0; first < n; first += kBlock) {
    sum += block_sum(weight, first, std::min(first + kBlock, n));
  }
  return sum;
}

/// Inverse transform: the first id whose cumulated weight exceeds u * total, where total is
/// `weight_sum(weight, n)` and u lies in (0, 1). An id of weight 0 is never drawn; -1 when all
/// weights are 0.
template <typename Weight>
int32_t draw(const Weight& weight, int64_t n, double total, double u) {
  const double target = u * total;
  double before = 0;
  int64_t last_positive = -1;  // what rounding may leave to the end of a block goes to its last id
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t last = std::min(first + kBlock, n);
    const double sum = block_sum(weight, first, last);
    if (!(before + sum > target) && last < n) {
      before += sum;
      continue;
    }
    double cumulated = before;
    for (int64_t i = first; i < last; ++i) {
      const double w = weight(i);
      if (!(w > 0)) continue;
      last_positive = i;
      cumulated += w;
      if (cumulated > target) return static_cast<int32_t>(i);
    }
    before += sum;
    if (last_positive >= 0 && before > target) return static_cast<int32_t>(last_positive);
  }
  for (int64_t i = n - 1; last_positive < 0 && i >= 0; --i) {
    if (weight(i) > 0) last_positive = i;
  }
  return static_cast<int32_t>(last_positive);
}

}  // namespace tandem::round
