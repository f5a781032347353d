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

/// How a format scales its numbers. `kGroup`: inputs that share a scale of one output, 0: none do
/// within the sum. `kUnit`: what a sum is multiplied with besides its output's scale; 0: nothing.
template <typename Line>
struct Scaling {
  static constexpr int64_t kGroup = 0;
  static constexpr float kUnit = 0;
};
template <>
struct Scaling<Fp8Line> {
  static constexpr int64_t kGroup = 0;
  static constexpr float kUnit = 0x1p8f;  // what its Line leaves out
};
template <>
struct Scaling<Int4Line> {
  static constexpr int64_t kGroup = 128;
  static constexpr float kUnit = 0;
};

/// A panel's scales: 16 for each group of inputs.
template <typename Line>
constexpr int64_t panel_scales(int64_t cols) {
  constexpr int64_t kGroup = Scaling<Line>::kGroup;
  return kGroup == 0 ? kLanes : (cols + kGroup - 1) / kGroup * kLanes;
}

constexpr int64_t kCacheLine = 64;
// Rows that go through a group of panels before the next group: their x stays in the second-level
// cache.
constexpr int64_t kRowChunk = 64;
// How far ahead of its use a line of weights is asked for: about what arrives during the latency of
// the third-level cache.
constexpr int64_t kPrefetchBytes = 12288;

/// sums[r * sums_stride + p] = the sums of row r and panel p; two lines of a panel are
/// `line_stride` bytes apart, the scales of two panels panel_scales(cols).
template <typename Line, int kRows, int kPanels>
void sum_tile(const float* x, int64_t cols, const std::byte* line, int64_t line_stride,
              const float* scales, Vec* sums, int64_t sums_stride) {
  constexpr int64_t kGroup = Scaling<Line>::kGroup;
  Vec acc[kRows][kPanels];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) acc[r][p] = splat(0.0f);
  }
  [[maybe_unused]] const int64_t scales_stride = panel_scales<Line>(cols);
  const auto scaled = [&](Vec weights, [[maybe_unused]] int p) {
    if constexpr (kGroup != 0) return weights * load(scales + p * scales_stride);
    return weights;
  };
  const int64_t step = kGroup == 0 ? cols : kGroup;
#pragma GCC unroll 1
  for (int64_t k = 0; k < cols;) {
    const int64_t end = k + step < cols ? k + step : cols;
#pragma GCC unroll 1
    for (; k + 1 < end; k += 2, line += line_stride) {
      Vec w[kPanels];
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) {
        for (int64_t byte = 0; byte < Line::kBytes; byte += kCacheLine) {
          __builtin_prefetch(line + kPrefetchBytes + p * Line::kBytes + byte);
        }
        w[p] = scaled(Line::even(line + p * Line::kBytes), p);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Vec input = splat(x[r * cols + k]);
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; ++p) acc[r][p] = fma(input, w[p], acc[r][p]);
      }
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) w[p] = scaled(Line::odd(line + p * Line::kBytes), p);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Vec input = splat(x[r * cols + k + 1]);
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; ++p) acc[r][p] = fma(input, w[p], acc[r][p]);
      }
    }
    if (k < end) {  // an odd last input
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) {
        const Vec w = scaled(Line::even(line + p * Line::kBytes), p);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) acc[r][p] = fma(splat(x[r * cols + k]), w, acc[r][p]);
      }
      ++k;
    }
    if constexpr (kGroup != 0) scales += kLanes;
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

/// Scale, bias, activation and store for rows [row, row + rows) of panels [panel, panel + panels).
template <typename Line>
inline void finish_tile(const MatmulArgs& args, int64_t row, int rows, int64_t panel, int panels,
                        const Vec* sums) {
  constexpr float kUnit = Scaling<Line>::kUnit;
  const auto scaled = [&](Vec value, [[maybe_unused]] int64_t at) {
    if constexpr (kUnit != 0) return value * (load(args.scales + at * kLanes) * splat(kUnit));
    return value;
  };
  const int64_t interleaved = args.paired ? 2 : 1;
  const float* up_bias = args.bias == nullptr ? nullptr : args.bias + args.outputs;
  for (int r = 0; r < rows; ++r) {
    float* out = args.out + (row + r) * args.out_stride;
    for (int p = 0; p < panels; ++p) {
      const bool up = args.paired && p % 2 != 0;
      const int64_t column = (panel + p) / interleaved * kLanes;
      const int64_t count = args.outputs - column;
      Vec value = scaled(sums[r * panels + p], panel + p);
      if (args.bias != nullptr) value = value + load((up ? up_bias : args.bias) + column);
      if (args.silu_gate) {
        ++p;
        Vec other = scaled(sums[r * panels + p], panel + p);
        if (args.bias != nullptr) other = other + load(up_bias + column);
        value = silu(value) * other;
      }
      put(value, out + column + (up ? args.outputs : 0), count, args.add);
    }
  }
}

using SumTile = void (*)(const float*, int64_t, const std::byte*, int64_t, const float*, Vec*,
                         int64_t);

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

/// What sum_tile needs of the scales: nothing where they belong to whole outputs.
template <typename Line>
inline const float* scales_of(const MatmulArgs& args, int64_t panel) {
  if (Scaling<Line>::kGroup == 0) return nullptr;
  return args.scales + panel * panel_scales<Line>(args.cols);
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
                                         scales_of<Line>(args, panel + p), sums + p, group.count);
          p += count;
        }
        finish_tile<Line>(args, row, static_cast<int>(rows), panel, static_cast<int>(group.count),
                          sums);
        row += rows;
      }
      panel += group.count;
    }
  }
}

}  // namespace
}  // namespace tandem
