#pragma once

// Attention over a paged cache in terms of the including file's vec_*.h. Internal linkage (see
// there).
//
// Computes   softmax(scale * q k^T) v by an online softmax (Milakov & Gimelshein 2018) over parts
// of kAttentionPart
//            slots in ascending order. A row's bits depend on its own last slot alone.
// Bounds     the cache's bytes for one row, multiply-adds for more.
// Layout     a part's keys and values stay in the first-level cache while all rows and heads of the
// call use them.

#include "backend/cpu/exp_impl.h"
#include "backend/cpu/kernels.h"

namespace tandem {
namespace {

/// Where the keys and values of a part's slots begin. Entries behind the last slot repeat it,
/// because dot products come in blocks.
struct Part {
  const float* keys[kAttentionPart];
  const float* values[kAttentionPart];
};

inline void locate(const AttentionArgs& args, int begin, int last_slot, Part& part) {
  int page = begin / args.page_tokens, within = begin % args.page_tokens;
  int64_t offset = 0;
  for (int i = 0; i < kAttentionPart; ++i) {
    if (begin + i <= last_slot) {
      if (within == args.page_tokens) {
        within = 0;
        ++page;
      }
      offset = args.pages[page] * args.page_stride + int64_t{within} * args.head_dim;
      ++within;
    }
    part.keys[i] = args.keys + offset;
    part.values[i] = args.values + offset;
  }
}

inline void prefetch_head(const float* head, int head_dim) {
  for (int d = 0; d < head_dim; d += kLanes) __builtin_prefetch(head + d);
}

/// scores[i] = q . keys[i] for kDots keys; asks for `soon[i]` meanwhile.
/// kVectors is head_dim / kLanes when that is whole and known beforehand, else 0.
template <int kVectors>
inline void dot_block(const float* q, const float* const* keys, int head_dim,
                      const float* const* soon, float* scores) {
  Partial parts[kDots];
  if constexpr (kVectors > 0) {
    Vec query[kVectors];
    for (int v = 0; v < kVectors; ++v) query[v] = load(q + v * kLanes);
    for (int i = 0; i < kDots; ++i) {
      Vec acc = query[0] * load(keys[i]);
      for (int v = 1; v < kVectors; ++v) {
        acc = fma(query[v], load(keys[i] + v * kLanes), acc);
      }
      if (soon != nullptr) prefetch_head(soon[i], kVectors * kLanes);
      parts[i] = fold(acc);
    }
  } else {
    const int whole = head_dim / kLanes * kLanes;
    for (int i = 0; i < kDots; ++i) {
      Vec acc = splat(0.0f);
      for (int d = 0; d < whole; d += kLanes) acc = fma(load(q + d), load(keys[i] + d), acc);
      if (whole < head_dim) {
        const int rest = head_dim - whole;
        acc = fma(load_first(q + whole, rest), load_first(keys[i] + whole, rest), acc);
      }
      if (soon != nullptr) prefetch_head(soon[i], head_dim);
      parts[i] = fold(acc);
    }
  }
  store_sums(parts, scores);
}

/// scores[i] = q . keys[i] for at least the first `count` slots of a part.
inline void dot_part(const float* q, const Part& part, int count, int head_dim, bool prefetch,
                     float* scores) {
  for (int i = 0; i < count; i += kDots) {
    const float* const* keys = part.keys + i;
    const float* const* soon = prefetch ? part.values + i : nullptr;
    switch (head_dim) {
      case 4 * kLanes:
        dot_block<4>(q, keys, head_dim, soon, scores + i);
        break;
      case 8 * kLanes:
        dot_block<8>(q, keys, head_dim, soon, scores + i);
        break;
      default:
        dot_block<0>(q, keys, head_dim, soon, scores + i);
    }
  }
}

/// acc[h][d] = acc[h][d] * keep[h] + sum over i < count of weights[h][i] * values[i][d], for a tile
/// of heads and columns.
template <int kHeads, int kVectors>
void mix_tile(const float* const* values, int count, int column, const float* weights,
              const float* keep, float* acc, int head_dim) {
  Vec sums[kHeads][kVectors];
  for (int h = 0; h < kHeads; ++h) {
    for (int v = 0; v < kVectors; ++v) {
      sums[h][v] = load(acc + h * head_dim + column + v * kLanes) * splat(keep[h]);
    }
  }
  for (int i = 0; i < count; ++i) {
    Vec value[kVectors];
    for (int v = 0; v < kVectors; ++v) value[v] = load(values[i] + column + v * kLanes);
    for (int h = 0; h < kHeads; ++h) {
      const Vec weight = splat(weights[h * kAttentionPart + i]);
      for (int v = 0; v < kVectors; ++v) sums[h][v] = fma(weight, value[v], sums[h][v]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int v = 0; v < kVectors; ++v) {
      store(acc + h * head_dim + column + v * kLanes, sums[h][v]);
    }
  }
}

/// The columns behind the last whole vector of a head.
inline void mix_rest(const float* const* values, int count, int column, const float* weights,
                     float keep, float* acc, int head_dim) {
  const int rest = head_dim - column;
  Vec sums = load_first(acc + column, rest) * splat(keep);
  for (int i = 0; i < count; ++i) {
    sums = fma(splat(weights[i]), load_first(values[i] + column, rest), sums);
  }
  store_first(acc + column, sums, rest);
}

template <int kHeads>
void mix_heads(const float* const* values, int count, const float* weights, const float* keep,
               float* acc, int head_dim) {
  const int whole = head_dim / kLanes * kLanes;
  int column = 0;
  for (; column + kMixVectors * kLanes <= whole; column += kMixVectors * kLanes) {
    mix_tile<kHeads, kMixVectors>(values, count, column, weights, keep, acc, head_dim);
  }
  for (; column < whole; column += kLanes) {
    mix_tile<kHeads, 1>(values, count, column, weights, keep, acc, head_dim);
  }
  if (column < head_dim) {
    for (int h = 0; h < kHeads; ++h) {
      mix_rest(values, count, column, weights + h * kAttentionPart, keep[h], acc + h * head_dim,
               head_dim);
    }
  }
}

/// Turns scores of `count` slots into weights exp(score - largest so far), 0 behind them, and
/// brings the running largest and the running sum up to date. Returns what earlier sums must be
/// multiplied by.
inline float soften(float* scores, int count, float scale, float& largest, float& total) {
  const float lowest = -__builtin_inff();
  const int vectors = (count + kLanes - 1) / kLanes;
  for (int i = count; i < vectors * kLanes; ++i) scores[i] = lowest;
  Vec most = splat(lowest);
  for (int v = 0; v < vectors; ++v) {
    const Vec scaled = load(scores + v * kLanes) * splat(scale);
    store(scores + v * kLanes, scaled);
    most = max(most, scaled);
  }
  const float part_largest = max_lane(most);
  const float now = part_largest > largest ? part_largest : largest;
  Vec sums = splat(0.0f);
  for (int v = 0; v < vectors; ++v) {
    const Vec weight = exp(load(scores + v * kLanes) - splat(now));
    store(scores + v * kLanes, weight);
    sums = sums + weight;
  }
  float lanes[kLanes];
  store(lanes, exp(splat(largest - now)));
  const float keep = lanes[0];
  total = total * keep + sum(sums);
  largest = now;
  return keep;
}

inline void attention(const AttentionArgs& args) {
  const int heads = args.rows * args.group;  // of all rows
  float* const weights = args.scratch;       // (group, kAttentionPart)
  float* const keep = weights + args.group * kAttentionPart;
  float* const largest = keep + args.group;
  float* const total = largest + heads;
  float* const acc = total + heads;  // (rows, group, head_dim)
  int last_slot = 0;
  for (int r = 0; r < args.rows; ++r) {
    if (args.slots[r] > last_slot) last_slot = args.slots[r];
  }
  for (int i = 0; i < heads; ++i) {
    largest[i] = -__builtin_inff();
    total[i] = 0.0f;
  }
  for (int i = 0; i < heads * args.head_dim; ++i) acc[i] = 0.0f;

  for (int begin = 0; begin <= last_slot; begin += kAttentionPart) {
    Part part;
    locate(args, begin, last_slot, part);
    for (int r = 0; r < args.rows; ++r) {
      if (args.slots[r] < begin) continue;
      const int seen = args.slots[r] + 1 - begin;
      const int count = seen < kAttentionPart ? seen : kAttentionPart;
      const float* q = args.q + r * args.q_stride;
      float* row_acc = acc + r * args.group * args.head_dim;
      for (int h = 0; h < args.group; ++h) {
        float* scores = weights + h * kAttentionPart;
        // The first use of a part's keys brings in its values.
        dot_part(q + h * args.head_dim, part, count, args.head_dim, r == 0 && h == 0, scores);
        const int index = r * args.group + h;
        keep[h] = soften(scores, count, args.scale, largest[index], total[index]);
      }
      int h = 0;
      for (; h + kMixHeads <= args.group; h += kMixHeads) {
        mix_heads<kMixHeads>(part.values, count, weights + h * kAttentionPart, keep + h,
                             row_acc + h * args.head_dim, args.head_dim);
      }
      for (; h < args.group; ++h) {
        mix_heads<1>(part.values, count, weights + h * kAttentionPart, keep + h,
                     row_acc + h * args.head_dim, args.head_dim);
      }
    }
  }
  for (int r = 0; r < args.rows; ++r) {
    for (int h = 0; h < args.group; ++h) {
      const int index = r * args.group + h;
      const float inverse = 1.0f / total[index];
      const float* from = acc + index * args.head_dim;
      float* out = args.out + r * args.out_stride + h * args.head_dim;
      for (int d = 0; d < args.head_dim; ++d) out[d] = from[d] * inverse;
    }
  }
}

}  // namespace
}  // namespace tandem
