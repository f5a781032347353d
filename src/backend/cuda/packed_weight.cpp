#include "backend/cuda/packed_weight.h"

#include "core/memory.h"
#include "core/size.h"
#include "tandem/error.h"

namespace tandem {

kernels::Packed packed_format(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF16:
      return kernels::Packed::kF16;
    case WeightFormat::kFp8E4M3:
      return kernels::Packed::kFp8;
    case WeightFormat::kInt4Group128:
      return kernels::Packed::kInt4;
    default:
      return kernels::Packed::kBF16;
  }
}

PackedLayout::PackedLayout(const WeightSpec& spec) {
  if (spec.segments.empty() || spec.segments.size() > segments_.size() || spec.cols <= 0) {
    throw ShapeError("a weight has 1 to " + std::to_string(segments_.size()) +
                     " segments and at least one column");
  }
  if (spec.paired && (spec.segments.size() != 2 || spec.segments[0].rows != spec.segments[1].rows ||
                      spec.segments[0].format != spec.segments[1].format)) {
    throw ShapeError("the two segments of a paired weight must have equal rows and formats");
  }
  for (const WeightSpec::Segment& segment : spec.segments) {
    if (segment.rows <= 0) throw ShapeError("a weight's segment needs at least one row");
  }
  const size_t count = spec.segments.size();
  for (size_t first = 0; first < count;) {
    const kernels::Packed format = packed_format(spec.segments[first].format);
    size_t last = first;
    int64_t panels = 0;
    for (; last < count && packed_format(spec.segments[last].format) == format; ++last) {
      Segment& segment = segments_[last];
      segment.data =
          bytes_ + static_cast<uint64_t>(panels * kernels::panel_bytes(format, spec.cols));
      segment.scales = static_cast<uint64_t>(panels * kernels::kPanelOutputs) * sizeof(float);
      segment.panels = spec.paired ? kernels::paired_panels_of(spec.segments[last].rows)
                                   : kernels::panels_of(spec.segments[last].rows);
      if (spec.paired && last > first) {
        segment.data = segments_[first].data;
        segment.scales = segments_[first].scales;
      } else {
        panels += segment.panels;
      }
    }
    bytes_ += align_up(static_cast<uint64_t>(panels * kernels::panel_bytes(format, spec.cols)),
                       kDeviceAlignment);
    for (size_t i = first; i < last; ++i) segments_[i].scales += bytes_;
    if (format == kernels::Packed::kFp8) {
      bytes_ += align_up(static_cast<uint64_t>(panels * kernels::kPanelOutputs) * sizeof(float),
                         kDeviceAlignment);
    }
    first = last;
  }
  bias_offset_ = bytes_;
  if (spec.has_bias) {
    bytes_ += align_up(static_cast<uint64_t>(spec.rows()) * sizeof(float), kDeviceAlignment);
  }
}

}  // namespace tandem
