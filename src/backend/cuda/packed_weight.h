#pragma once

#include <array>
#include <cstdint>

#include "backend/weight_view.h"
#include "kernels/packed_layout.h"

namespace tandem {

/// How a checkpoint's format is held by the CUDA backend: float32 becomes bfloat16.
kernels::Packed packed_format(WeightFormat format);

/// Where the parts of a weight lie in device memory. Segments of one format that follow each other
/// make a run: their panels are contiguous, so that one kernel takes them together; then come the
/// run's fp8 scales. The bias is last. Pure arithmetic: plans use it on machines without a GPU.
class PackedLayout {
 public:
  /// @throws ShapeError on sizes that make no weight
  explicit PackedLayout(const WeightSpec& spec);

  struct Segment {
    uint64_t data = 0;    ///< bytes to the first panel
    uint64_t scales = 0;  ///< bytes to the first scale, fp8 only
    int64_t panels = 0;   ///< of both halves together when paired
  };
  const Segment& segment(int index) const { return segments_[static_cast<size_t>(index)]; }
  uint64_t bias_offset() const { return bias_offset_; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::array<Segment, WeightView::kMaxSegments> segments_;
  uint64_t bias_offset_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace tandem
