#pragma once

#include <cstdint>
#include <span>

#include "backend/round_view.h"

namespace tandem::round {

/// @throws ShapeError when there are penalties but no counts to apply them to
void require_penalty_buffers(const RoundView& round, const SamplingTransform& transform);

/// The logits of one row on their way to a distribution: what penalties and the mask make of them.
class AdjustedLogits {
 public:
  /// @param drafted tokens that stand before this row in the round
  AdjustedLogits(const RoundView& round, int sequence, const float* logits,
                 const SamplingTransform& transform, const uint8_t* allowed,
                 std::span<const int32_t> drafted);

  /// False when `write` would only copy.
  bool changes() const { return penalties_ || allowed_ != nullptr; }
  /// out[i - first] = logit i after penalties, -infinity where the mask forbids i.
  void write(int64_t first, int64_t last, float* out) const;

 private:
  const float* logits_;
  const SamplingTransform& transform_;
  const uint8_t* allowed_;
  std::span<const int32_t> drafted_;
  bool penalties_;
  const int32_t* counts_ = nullptr;
  const uint8_t* prompt_seen_ = nullptr;
};

/// Keeps the `top_k` largest logits, of equal ones those with lower ids, and sets the others to
/// -infinity. @param scratch `top_k_scratch_floats(n, top_k)`
void keep_top_k(const float* logits, int64_t n, int top_k, float* scratch, float* out);
int64_t top_k_scratch_floats(int64_t n, int top_k);

/// Sets to 0 every weight outside the smallest set of largest weights whose sum reaches
/// top_p * sum(weights); of equal weights those with lower ids are kept.
/// @param largest of the weights
/// @param scratch room for n 64-bit keys, 8-byte aligned
void keep_top_p(float* weights, int64_t n, float top_p, float largest, void* scratch);

/// Sets to 0 every weight below min_p * largest.
void keep_min_p(float* weights, int64_t n, float min_p, float largest);

/// Sum of float32 weights in sixteen lanes, then a tree: an order that depends on n alone.
float lane_sum(const float* weights, int64_t n);

}  // namespace tandem::round
