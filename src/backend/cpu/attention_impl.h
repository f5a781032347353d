#pragma once

// Attention over a paged cache in terms of the including file's vec_*.h. Internal linkage (see
// there).
//
// Computes   softmax(scale * q k^T) v by an online softmax (Milakov & Gimelshein 2018) over parts
// of kAttentionPart
//            slots in ascending order. A row's bits depend on its own last slot alone.
// Bounds     the cache's bytes for one row, multiply-adds for more.
// Layout     keys lie with slots innermost (see key_offset), so that 16 scores are summed in 16
// lanes; values with the
//            head's elements innermost. A part's keys and values stay in the first-level cache
//            while all queries of the call (rows times the query heads that share the kv head) pass
//            over them, a few at a time.

#include "backend/cpu/exp_impl.h"
#include "backend/cpu/kernels.h"

namespace tandem {
namespace {

// Scores are stored a whole vector at a time, the last of which may reach behind the part.
constexpr int kScoreStride = kAttentionPart + kLanes;

/// The slots of a part that lie in one page.
struct Run {
  const float* values = nullptr;
  int first = 0;  // within the part
  int count = 0;
};
/// At most 16 slots of a part that lie in one page.
struct Block {
  const float* keys = nullptr;
  int first = 0;
  int count = 0;
};
struct Part {
  int begin = 0;  // slot
  Run runs[kAttentionPart];
  Block blocks[kAttentionPart];
  int run_count = 0;
  int block_count = 0;
  const Part* next = nullptr;  // may be asked for in step with this one
};

/// Finds the slots of the part at `begin`. Entries up to those of the part before it are filled, so
/// that it can be asked for in step with that one.
inline void locate(const AttentionArgs& args, int begin, int last_slot, const Part& before,
                   Part& part) {
  const int end = last_slot + 1 < begin + kAttentionPart ? last_slot + 1 : begin + kAttentionPart;
  int page = begin / args.page_tokens, within = begin % args.page_tokens;
  int runs = 0, blocks = 0;
  Run run;
  Block block;
  for (int slot = begin; slot < end; ++page, within = 0) {
    const int in_page = args.page_tokens - within;
    const int count = end - slot < in_page ? end - slot : in_page;
    const int64_t offset = args.pages[page] * args.page_stride;
    run = {args.values + offset + int64_t{within} * args.head_dim, slot - begin, count};
    part.runs[runs++] = run;
    for (int i = 0; i < count; i += kLanes) {
      block = {args.keys + offset + within + i, slot - begin + i,
               count - i < kLanes ? count - i : kLanes};
      part.blocks[blocks++] = block;
    }
    slot += count;
  }
  part.begin = begin;
  part.run_count = runs;
  part.block_count = blocks;
  for (Run* at = part.runs + runs; at < part.runs + before.run_count; ++at) *at = run;
  for (Block* at = part.blocks + blocks; at < part.blocks + before.block_count; ++at) *at = block;
}

/// One head of one row: its running softmax.
struct Query {
  const float* q = nullptr;
  float* acc = nullptr;  // (head_dim) sum of weights * values so far
  int last_slot = 0;
  float largest = 0.0f;  // score so far
  float total = 0.0f;    // sum of weights so far
};

static_assert(sizeof(Query) == 8 * sizeof(float), "attention_scratch_floats counts on it");

/// scores[j][block.first + lane] = q_j . key for kQueries queries and kBlocks whole blocks.
template <int kQueries, int kBlocks, bool kAsk>
void score_blocks(const Query* const* queries, const Block* blocks, const Block* next, int head_dim,
                  int key_stride, float (*scores)[kScoreStride]) {
  Vec acc[kQueries][kBlocks];
#pragma GCC unroll 8
  for (int j = 0; j < kQueries; ++j) {
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) acc[j][b] = splat(0.0f);
  }
  const float* keys[kBlocks];
  const float* soon[kBlocks];
  const float* q[kQueries];
#pragma GCC unroll 8
  for (int b = 0; b < kBlocks; ++b) {
    keys[b] = blocks[b].keys;
    soon[b] = kAsk ? next[b].keys : nullptr;
  }
#pragma GCC unroll 8
  for (int j = 0; j < kQueries; ++j) q[j] = queries[j]->q;
  int64_t offset = 0;
  for (int d = 0; d < head_dim; ++d, offset += key_stride) {
    Vec key[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
      key[b] = load(keys[b] + offset);
      if (kAsk) __builtin_prefetch(soon[b] + offset);
    }
#pragma GCC unroll 8
    for (int j = 0; j < kQueries; ++j) {
      const Vec element = splat(q[j][d]);
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) acc[j][b] = fma(element, key[b], acc[j][b]);
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < kQueries; ++j) {
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) store(scores[j] + blocks[b].first, acc[j][b]);
  }
}

/// The same for a block of fewer than 16 slots; lanes behind them get 0.
inline void score_rest(const Query& query, const Block& block, int head_dim, int key_stride,
                       float* scores) {
  Vec acc = splat(0.0f);
  for (int d = 0; d < head_dim; ++d) {
    const Vec key = load_first(block.keys + int64_t{d} * key_stride, block.count);
    acc = fma(splat(query.q[d]), key, acc);
  }
  store(scores + block.first, acc);
}

template <int kQueries, bool kAsk>
void score_part(const Query* const* queries, const Part& part, const AttentionArgs& args,
                float (*scores)[kScoreStride]) {
  for (int b = 0; b < part.block_count;) {
    int whole = 0;  // blocks in a row
    while (whole < kScoreBlocks && b + whole < part.block_count &&
           part.blocks[b + whole].count == kLanes) {
      ++whole;
    }
    const Block* blocks = part.blocks + b;
    const Block* next = kAsk ? part.next->blocks + b : nullptr;
    if (whole == kScoreBlocks) {
      score_blocks<kQueries, kScoreBlocks, kAsk>(queries, blocks, next, args.head_dim,
                                                 args.page_tokens, scores);
      b += kScoreBlocks;
    } else if (whole > 0) {
      score_blocks<kQueries, 1, kAsk>(queries, blocks, next, args.head_dim, args.page_tokens,
                                      scores);
      ++b;
    } else {
      for (int j = 0; j < kQueries; ++j) {
        score_rest(*queries[j], *blocks, args.head_dim, args.page_tokens, scores[j]);
      }
      ++b;
    }
  }
}

/// Slots of the part that a query sees.
inline int seen(const Query& query, const Part& part) {
  const int count = query.last_slot + 1 - part.begin;
  return count < kAttentionPart ? count : kAttentionPart;
}

/// Turns the scores of the slots that each query sees into weights exp(score - largest so far) and
/// brings its running numbers up to date; keep[j] is what its earlier sums must be multiplied by.
/// One query's steps wait for each other, so every step is done for all queries before the next.
template <int kQueries>
void soften(Query* const* queries, const Part& part, float scale, float (*scores)[kScoreStride],
            float (&keep)[kLanes]) {
  const float lowest = -__builtin_inff();
  float before[kLanes] = {}, after[kLanes] = {};
  int vectors[kQueries];
  for (int j = 0; j < kQueries; ++j) {
    const int count = seen(*queries[j], part);
    vectors[j] = (count + kLanes - 1) / kLanes;
    for (int i = count; i < vectors[j] * kLanes; ++i) scores[j][i] = lowest;
    Vec most = splat(lowest);
    for (int v = 0; v < vectors[j]; ++v) {
      const Vec scaled = load(scores[j] + v * kLanes) * splat(scale);
      store(scores[j] + v * kLanes, scaled);
      most = max(most, scaled);
    }
    const float part_largest = max_lane(most);
    before[j] = queries[j]->largest;
    after[j] = part_largest > before[j] ? part_largest : before[j];
  }
  store(keep, exp(load(before) - load(after)));
  for (int j = 0; j < kQueries; ++j) {
    Vec sums = splat(0.0f);
    for (int v = 0; v < vectors[j]; ++v) {
      const Vec weight = exp(load(scores[j] + v * kLanes) - splat(after[j]));
      store(scores[j] + v * kLanes, weight);
      sums = sums + weight;
    }
    queries[j]->total = queries[j]->total * keep[j] + sum(sums);
    queries[j]->largest = after[j];
  }
}

/// acc_j[d] = acc_j[d] * keep[j] + sum over slots [from, to) of a part of weights[j][slot] *
/// value[slot][d], for a tile of queries and columns.
template <int kQueries, int kVectors, bool kAsk>
void mix_tile(const Query* const* queries, const Part& part, int from, int to, int column,
              const float (*weights)[kScoreStride], const float* keep, int head_dim) {
  Vec sums[kQueries][kVectors];
#pragma GCC unroll 8
  for (int j = 0; j < kQueries; ++j) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sums[j][v] = load(queries[j]->acc + column + v * kLanes) * splat(keep[j]);
    }
  }
  for (int r = 0; r < part.run_count; ++r) {
    const Run& run = part.runs[r];
    const int first = run.first > from ? run.first : from;
    const int last = run.first + run.count < to ? run.first + run.count : to;
    const int64_t offset = int64_t{first - run.first} * head_dim + column;
    const float* values = run.values + offset;
    const float* next = kAsk ? part.next->runs[r].values + offset : nullptr;
    for (int slot = first; slot < last; ++slot, values += head_dim) {
      if (kAsk) {
        for (int v = 0; v < kVectors; ++v) __builtin_prefetch(next + v * kLanes);
        next += head_dim;
      }
      Vec value[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) value[v] = load(values + v * kLanes);
#pragma GCC unroll 8
      for (int j = 0; j < kQueries; ++j) {
        const Vec weight = splat(weights[j][slot]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[j][v] = fma(weight, value[v], sums[j][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < kQueries; ++j) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(queries[j]->acc + column + v * kLanes, sums[j][v]);
  }
}

/// The columns behind the last whole vector of a head.
inline void mix_rest(const Query& query, const Part& part, int from, int to, int column,
                     const float* weights, float keep, int head_dim) {
  const int rest = head_dim - column;
  Vec sums = load_first(query.acc + column, rest) * splat(keep);
  for (int r = 0; r < part.run_count; ++r) {
    const Run& run = part.runs[r];
    for (int i = 0; i < run.count; ++i) {
      const int slot = run.first + i;
      if (slot < from || slot >= to) continue;
      const Vec value = load_first(run.values + int64_t{i} * head_dim + column, rest);
      sums = fma(splat(weights[slot]), value, sums);
    }
  }
  store_first(query.acc + column, sums, rest);
}

template <int kQueries, bool kAsk>
void mix_slots(const Query* const* queries, const Part& part, int from, int to,
               const float (*weights)[kScoreStride], const float* keep, int head_dim) {
  const int whole = head_dim / kLanes * kLanes;
  int column = 0;
  for (; column + kMixVectors * kLanes <= whole; column += kMixVectors * kLanes) {
    mix_tile<kQueries, kMixVectors, kAsk>(queries, part, from, to, column, weights, keep, head_dim);
  }
  for (; column < whole; column += kLanes) {
    mix_tile<kQueries, 1, kAsk>(queries, part, from, to, column, weights, keep, head_dim);
  }
  if (column < head_dim) {
    for (int j = 0; j < kQueries; ++j) {
      mix_rest(*queries[j], part, from, to, column, weights[j], keep[j], head_dim);
    }
  }
}

/// Takes a part into the running softmax of kQueries queries; asks for the next part meanwhile, if
/// so told.
template <int kQueries, bool kAsk>
void take_part(Query* const* queries, const Part& part, const AttentionArgs& args) {
  float weights[kQueries][kScoreStride];
  float keep[kLanes];
  score_part<kQueries, kAsk>(queries, part, args, weights);
  soften<kQueries>(queries, part, args.scale, weights, keep);
  int common = kAttentionPart;  // slots that all of them see
  for (int j = 0; j < kQueries; ++j) {
    const int count = seen(*queries[j], part);
    common = count < common ? count : common;
  }
  mix_slots<kQueries, kAsk>(queries, part, 0, common, weights, keep, args.head_dim);
  const float once = 1.0f;
  for (int j = 0; j < kQueries; ++j) {
    const int count = seen(*queries[j], part);
    // Never with weight 0 instead: an invisible slot may hold anything, and even 0 would turn -0
    // into +0.
    if (count > common) {
      mix_slots<1, false>(queries + j, part, common, count, weights + j, &once, args.head_dim);
    }
  }
}

template <int kQueries>
void take_part_of(int count, Query* const* queries, const Part& part, const AttentionArgs& args) {
  if (count == kQueries) {
    if (part.next != nullptr) {
      take_part<kQueries, true>(queries, part, args);
    } else {
      take_part<kQueries, false>(queries, part, args);
    }
  } else if constexpr (kQueries > 1) {
    take_part_of<kQueries - 1>(count, queries, part, args);
  }
}

inline void attention(const AttentionArgs& args) {
  const int count = args.rows * args.group;
  auto* const queries = reinterpret_cast<Query*>(args.scratch);
  float* const acc = args.scratch + count * (sizeof(Query) / sizeof(float));
  int last_slot = 0;
  for (int i = 0; i < count; ++i) {
    const int row = i / args.group, head = i % args.group;
    queries[i] = {args.q + row * args.q_stride + head * args.head_dim, acc + i * args.head_dim,
                  args.slots[row], -__builtin_inff(), 0.0f};
    if (args.slots[row] > last_slot) last_slot = args.slots[row];
  }
  for (int i = 0; i < count * args.head_dim; ++i) acc[i] = 0.0f;

  Part parts[2];
  locate(args, 0, last_slot, parts[1], parts[0]);
  for (int begin = 0, index = 0; begin <= last_slot; begin += kAttentionPart, index ^= 1) {
    Part& part = parts[index];
    part.next = nullptr;
    if (begin + kAttentionPart <= last_slot) {
      locate(args, begin + kAttentionPart, last_slot, part, parts[index ^ 1]);
      part.next = &parts[index ^ 1];
    }
    Query* tile[kAttentionQueries];
    int in_tile = 0;
    for (int i = 0; i < count; ++i) {
      if (queries[i].last_slot >= begin) tile[in_tile++] = queries + i;
      if (in_tile == kAttentionQueries || i + 1 == count) {
        take_part_of<kAttentionQueries>(in_tile, tile, part, args);
        in_tile = 0;
        part.next = nullptr;  // the first queries have asked for it
      }
    }
  }
  for (int i = 0; i < count; ++i) {
    const float inverse = 1.0f / queries[i].total;
    float* out = args.out + i / args.group * args.out_stride + i % args.group * args.head_dim;
    for (int d = 0; d < args.head_dim; ++d) out[d] = queries[i].acc[d] * inverse;
  }
}

}  // namespace
}  // namespace tandem
