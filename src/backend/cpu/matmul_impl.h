#pragma once

// Matrix products over packed panels, in terms of the including file's vec_*.h. Internal linkage
// (see there).
//
// Computes   out[r][o] = sum over k of x[r][k] * w[o][k].
// Bounds     one row: the bytes of the weights; from about three rows on, multiply-adds.
// Layout     a tile is up to kTileRows rows by a few panels of 16 outputs, its sums in registers.
// An output's sum runs
//            over k in ascending order in a single register, whatever tile it is in: its bits
//            depend on its row of x alone.

#include "backend/cpu/exp_impl.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/panel_groups.h"

namespace tandem {
namespace {

struct Float32Line {
  static constexpr int64_t kBytes = 128;
  static Vec even(const std::byte* p) { return load(reinterpret_cast<const float*>(p)); }
  static Vec odd(const std::byte* p) { return even(p + 64); }
};

constexpr int64_t kCacheLine = 64;
// Rows that go through a group of panels before the next group: their x stays in the second-level
// cache.
constexpr int64_t kRowChunk = 64;
// How far ahead of its use a line of weights is asked for: about what arrives during the latency of
// the third-level cache.
constexpr int64_t kPrefetchBytes = 12288;

/// sums[r * sums_stride + p] = the sums of row r and panel p; two lines of a panel are
/// `line_stride` bytes apart.
template <typename Line, int kRows, int kPanels>
void sum_tile(const float* x, int64_t cols, const std::byte* line, int64_t line_stride, Vec* sums,
              int64_t sums_stride) {
  Vec acc[kRows][kPanels];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) acc[r][p] = splat(0.0f);
  }
#pragma GCC unroll 1
  for (int64_t k = 0; k + 1 < cols; k += 2, line += line_stride) {
    Vec w[kPanels];
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      for (int64_t byte = 0; byte < Line::kBytes; byte += kCacheLine) {
        __builtin_prefetch(line + kPrefetchBytes + p * Line::kBytes + byte);
      }
      w[p] = Line::even(line + p * Line::kBytes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec input = splat(x[r * cols + k]);
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) acc[r][p] = fma(input, w[p], acc[r][p]);
    }
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) w[p] = Line::odd(line + p * Line::kBytes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec input = splat(x[r * cols + k + 1]);
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) acc[r][p] = fma(input, w[p], acc[r][p]);
    }
  }
  if (cols % 2 != 0) {
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      const Vec w = Line::even(line + p * Line::kBytes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) acc[r][p] = fma(splat(x[r * cols + cols - 1]), w, acc[r][p]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) sums[r * sums_stride + p] = acc[r][p];
  }
}

inline Vec silu(Vec x) { return x / (splat(1.0f) + exp(splat(0.0f) - x)); }

/// Writes, or adds, the first `count` (at most 16) lanes.
inline void put(Vec value, float* out, int64_t count, bool add) {
  if (count >= kLanes) {
    store(out, add ? load(out) + value : value);
  } else {
    store_first(out, add ? load_first(out, count) + value : value, count);
  }
}

/// Bias, activation and store for rows [row, row + rows) of panels [panel, panel + panels).
inline void finish_tile(const MatmulArgs& args, int64_t row, int rows, int64_t panel, int panels,
                        const Vec* sums) {
  const int64_t interleaved = args.paired ? 2 : 1;
  const float* up_bias = args.bias == nullptr ? nullptr : args.bias + args.outputs;
  for (int r = 0; r < rows; ++r) {
    float* out = args.out + (row + r) * args.out_stride;
    for (int p = 0; p < panels; ++p) {
      const bool up = args.paired && p % 2 != 0;
      const int64_t column = (panel + p) / interleaved * kLanes;
      const int64_t count = args.outputs - column;
      Vec value = sums[r * panels + p];
      if (args.bias != nullptr) value = value + load((up ? up_bias : args.bias) + column);
      if (args.silu_gate) {
        Vec other = sums[r * panels + ++p];
        if (args.bias != nullptr) other = other + load(up_bias + column);
        value = silu(value) * other;
      }
      put(value, out + column + (up ? args.outputs : 0), count, args.add);
    }
  }
}

using SumTile = void (*)(const float*, int64_t, const std::byte*, int64_t, Vec*, int64_t);

/// All tiles of one format: rows 1 … kTileRows by panels 1 … kTilePanels[rows - 1].
template <typename Line>
struct Tiles {
  SumTile at[kTileRows][kGroupPanels] = {};

  constexpr Tiles() { fill_rows<kTileRows>(); }

 private:
  template <int kRows>
  constexpr void fill_rows() {
    fill_panels<kRows, kTilePanels[kRows - 1]>();
    if constexpr (kRows > 1) fill_rows<kRows - 1>();
  }
  template <int kRows, int kPanels>
  constexpr void fill_panels() {
    at[kRows - 1][kPanels - 1] = sum_tile<Line, kRows, kPanels>;
    if constexpr (kPanels > 1) fill_panels<kRows, kPanels - 1>();
  }
};

/// `rest` things cut into the fewest even pieces of at most `limit`: the size of the first piece.
inline int64_t even_piece(int64_t rest, int64_t limit) {
  const int64_t pieces = (rest + limit - 1) / limit;
  return (rest + pieces - 1) / pieces;
}

template <typename Line>
void matmul(const MatmulArgs& args) {
  static constexpr Tiles<Line> kTiles;
  const int64_t panel_bytes = (args.cols + 1) / 2 * Line::kBytes;
  Vec sums[kTileRows * kGroupPanels];
  for (int64_t chunk = 0; chunk < args.rows; chunk += kRowChunk) {
    const int64_t chunk_end = chunk + kRowChunk < args.rows ? chunk + kRowChunk : args.rows;
    for (int64_t panel = args.first_panel; panel < args.last_panel;) {
      const PanelGroup group = panel_group(args.first_panel, args.last_panel, args.paired, panel);
      const std::byte* data = args.panels + panel * panel_bytes;
      for (int64_t row = chunk; row < chunk_end;) {
        const int64_t rows = even_piece(chunk_end - row, kTileRows);
        for (int64_t p = 0; p < group.count;) {
          const int64_t count = even_piece(group.count - p, kTilePanels[rows - 1]);
          kTiles.at[rows - 1][count - 1](args.x + row * args.cols, args.cols,
                                         data + p * Line::kBytes, group.count * Line::kBytes,
                                         sums + p, group.count);
          p += count;
        }
        finish_tile(args, row, static_cast<int>(rows), panel, static_cast<int>(group.count), sums);
        row += rows;
      }
      panel += group.count;
    }
  }
}

}  // namespace
}  // namespace tandem
