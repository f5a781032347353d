#pragma once

#include <array>
#include <cstdint>

#include "backend/cpu/kernels.h"
#include "backend/cpu/panel_groups.h"
#include "backend/cpu/thread_pool.h"
#include "backend/weight_view.h"

namespace tandem {

/// Sizes of a packed weight.
///
/// A segment is a run of panels of 16 outputs (the last one filled up with zero rows); a panel is a
/// sequence of lines, one for every two consecutive inputs (an odd last input is paired with
/// zeros):
///   bf16  16 dwords, the low half the even input, the high half the odd one: a shift and a mask
///         make floats of them
///   f16   16 halves of the even input, then 16 of the odd one
///   f32   16 floats of the even input, then 16 of the odd one
///   fp8   16 codes of the even input, then 16 of the odd one
///   int4  16 bytes, the low four bits the even input, the high ones the odd one
/// A paired weight is one run whose panels alternate gate, up, so that one thread has both halves
/// of a column at hand. Behind a run lie its scales (float32; 16 for a panel of fp8, 16 for every
/// group of a panel of int4), panel by panel. Runs follow each other, then comes the bias in the
/// order of outputs. Within a run, PanelMap says where a panel lies.
class PanelSizes {
 public:
  /// @throws ShapeError on sizes that make no weight
  explicit PanelSizes(const WeightSpec& spec);

  uint64_t run_offset(int run) const { return run_offsets_[static_cast<size_t>(run)]; }
  uint64_t scales_offset(int run) const { return scales_offsets_[static_cast<size_t>(run)]; }
  uint64_t bias_offset() const { return bias_offset_; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::array<uint64_t, WeightView::kMaxSegments> run_offsets_{};
  std::array<uint64_t, WeightView::kMaxSegments> scales_offsets_{};
  uint64_t bias_offset_ = 0;
  uint64_t bytes_ = 0;
};

/// Which worker computes which panels of a weight, and how its panels are grouped (see
/// panel_groups.h). Follows from the shape and the number of workers alone.
class PanelMap {
 public:
  PanelMap(const WeightView& weight, int workers);

  int runs() const { return runs_; }
  /// A worker's panels of a run; often empty.
  WorkRange share(int run, int worker) const;
  PanelGroup group(int run, int64_t panel) const;

 private:
  int workers_;
  int runs_;
  bool paired_;
  std::array<int64_t, WeightView::kMaxSegments + 1>
      first_unit_{};  // a unit: a panel, or a gate and an up panel
};

/// Bytes of one line: 16 outputs times two inputs.
constexpr int64_t line_bytes(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return 2 * kLanes * 4;
    case WeightFormat::kFp8E4M3:
      return 2 * kLanes;
    case WeightFormat::kInt4Group128:
      return kLanes;
    default:
      return 2 * kLanes * 2;
  }
}

/// Where a panel's lines are, and its scales (null where the format has none).
struct PanelPlace {
  std::byte* first_line = nullptr;
  int64_t line_stride = 0;
  float* scales = nullptr;
};

/// An element of a checkpoint's matrix.
float host_element(const HostMatrix& host, int64_t row, int64_t col);

// The quantised formats (quantized_panels.cpp; backend/cuda/quantization.h defines them).
constexpr bool is_quantized(WeightFormat format) {
  return format == WeightFormat::kFp8E4M3 || format == WeightFormat::kInt4Group128;
}
/// Scales of one panel.
int64_t scales_of_panel(WeightFormat format, int64_t cols);
/// Quantises outputs [16 panel, …) of a matrix into a panel of zeros.
void pack_quantized_panel(const HostMatrix& host, WeightFormat format, int64_t panel,
                          const PanelPlace& place);
/// One output of such a panel as `cols` floats.
void unpack_quantized_lane(const PanelPlace& place, WeightFormat format, int lane, int64_t cols,
                           float* out);

/// Writes output `row` of a weight as `cols` floats.
void unpack_row(const WeightView& weight, const PanelMap& map, int64_t row, float* out);

}  // namespace tandem
