#include "backend/cpu/round_transform.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <new>

#include "backend/cpu/kernels.h"
#include "backend/cpu/round_math.h"

namespace tandem::round {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

/// Adds the lanes as a tree, halves first.
float tree_sum(float* lanes) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

/// Sum of the weights that are at least `floor`.
float sum_from(const float* weights, int64_t n, float floor) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float w = weights[i + lane];
      lanes[lane] += w >= floor ? w : 0.0f;
    }
  }
  for (int lane = 0; i < n; ++i, ++lane) lanes[lane] += weights[i] >= floor ? weights[i] : 0.0f;
  return tree_sum(lanes);
}

bool any_above(const float* x, int64_t n, float threshold) {
  int found = 0;
  for (int64_t i = 0; i < n; ++i) found |= static_cast<int>(x[i] > threshold);
  return found != 0;
}

/// Written without branches, which logits could not foretell, so that it becomes vectors.
struct Penalties {
  explicit Penalties(const SamplingTransform& t)
      : repetition(t.repetition_penalty),
        inverse_repetition(1.0f / t.repetition_penalty),
        presence(t.presence_penalty),
        frequency(t.frequency_penalty) {}
  float apply(float logit, int32_t count, uint8_t seen_in_prompt) const {
    const float factor = logit > 0.0f ? inverse_repetition : repetition;
    const float base = logit * ((count | seen_in_prompt) != 0 ? factor : 1.0f);
    const float once = count != 0 ? presence : 0.0f;
    return base - (once + frequency * static_cast<float>(count));
  }
  float repetition, inverse_repetition, presence, frequency;
};

}  // namespace

void require_penalty_buffers(const RoundView& round, const SamplingTransform& transform) {
  if (!transform.has_penalties()) return;
  if (round.output_counts != nullptr && round.prompt_seen != nullptr) return;
  throw ShapeError("penalties need the round's output_counts and prompt_seen");
}

AdjustedLogits::AdjustedLogits(const RoundView& round, int sequence, const float* logits,
                               const SamplingTransform& transform, const uint8_t* allowed,
                               std::span<const int32_t> drafted)
    : logits_(logits),
      transform_(transform),
      allowed_(allowed),
      drafted_(drafted),
      penalties_(transform.has_penalties()) {
  if (!penalties_) return;
  counts_ = round.output_counts + int64_t{sequence} * round.vocab;
  prompt_seen_ = round.prompt_seen + int64_t{sequence} * round.vocab;
}

void AdjustedLogits::write(int64_t first, int64_t last, float* out) const {
  if (penalties_) {
    const Penalties penalties(transform_);
    for (int64_t i = first; i < last; ++i) {
      out[i - first] = penalties.apply(logits_[i], counts_[i], prompt_seen_[i]);
    }
    for (const int32_t token : drafted_) {
      if (token < first || token >= last) continue;
      const auto times = static_cast<int32_t>(std::count(drafted_.begin(), drafted_.end(), token));
      out[token - first] =
          penalties.apply(logits_[token], counts_[token] + times, prompt_seen_[token]);
    }
  } else {
    std::copy(logits_ + first, logits_ + last, out);
  }
  if (allowed_ == nullptr) return;
  for (int64_t i = first; i < last; ++i) {
    out[i - first] = allowed_[i] != 0 ? out[i - first] : kForbidden;
  }
}

int64_t top_k_scratch_floats(int64_t n, int top_k) {
  return std::min<int64_t>(n, 2 * int64_t{top_k}) + kBlock;
}

void keep_top_k(const float* logits, int64_t n, int top_k, float* scratch, float* out) {
  // A pool of candidates for the k-th largest: when it is full, only its k largest stay, and from
  // then on nothing below the least of them is looked at.
  const int64_t capacity = top_k_scratch_floats(n, top_k);
  float threshold = kForbidden;
  int64_t count = 0;
  const auto shrink = [&] {
    std::nth_element(scratch, scratch + top_k - 1, scratch + count, std::greater<>());
    threshold = scratch[top_k - 1];
    count = top_k;
  };
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t last = std::min(first + kBlock, n);
    if (!any_above(logits + first, last - first, threshold)) continue;
    for (int64_t i = first; i < last; ++i) {
      if (!(logits[i] > threshold)) continue;
      scratch[count++] = logits[i];
      if (count == capacity) shrink();
    }
  }
  if (count >= top_k) shrink();

  const int64_t above = std::count_if(scratch, scratch + std::min<int64_t>(count, top_k),
                                      [&](float x) { return x > threshold; });
  for (int64_t i = 0; i < n; ++i) out[i] = logits[i] >= threshold ? logits[i] : kForbidden;
  int64_t ties_left = top_k - above;
  for (int64_t i = 0; i < n; ++i) {
    if (out[i] == threshold && --ties_left < 0) out[i] = kForbidden;
  }
}

void keep_top_p(float* weights, int64_t n, float top_p, float largest, void* scratch) {
  // Weights are searched in bands of a factor 16, the largest first: all bands above the one in
  // which the sum is reached are kept whole, so only that one must be sorted.
  constexpr float kBand = 1.0f / 16.0f;
  constexpr float kLowestFloor = 0x1p-80f;
  const float target = top_p * lane_sum(weights, n);
  float ceiling = std::numeric_limits<float>::infinity();
  float floor = largest * kBand;
  float above = 0;
  for (;;) {
    const float mass = sum_from(weights, n, floor);
    if (mass >= target || floor == 0.0f) break;
    above = mass;
    ceiling = floor;
    floor = floor * kBand > kLowestFloor ? floor * kBand : 0.0f;
  }
  // Ascending keys are descending weights, then ascending ids: the bits of positive floats order
  // as the floats do.
  auto* keys = new (scratch) uint64_t[static_cast<size_t>(n)];
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float w = weights[i];
    if (!(w >= floor && w < ceiling && w > 0)) continue;
    keys[count++] = (uint64_t{~std::bit_cast<uint32_t>(w)} << 32) | static_cast<uint64_t>(i);
  }
  std::sort(keys, keys + count);
  double cumulated = above;
  int64_t kept = 0;
  while (kept < count && cumulated < target) {
    cumulated += weights[keys[kept] & 0xffffffffu];
    ++kept;
  }
  for (int64_t i = kept; i < count; ++i) weights[keys[i] & 0xffffffffu] = 0;
  for (int64_t i = 0; i < n; ++i) weights[i] = weights[i] >= floor ? weights[i] : 0.0f;
}

void keep_min_p(float* weights, int64_t n, float min_p, float largest) {
  const float floor = min_p * largest;
  for (int64_t i = 0; i < n; ++i) weights[i] = weights[i] >= floor ? weights[i] : 0.0f;
}

float lane_sum(const float* weights, int64_t n) { return sum_from(weights, n, 0.0f); }

}  // namespace tandem::round
