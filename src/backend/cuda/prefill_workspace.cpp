#include "backend/cuda/prefill_workspace.h"

#include <algorithm>

#include "backend/cuda/packed_weight.h"
#include "core/memory.h"
#include "core/size.h"

namespace tandem {

PrefillWorkspace::PrefillWorkspace(int64_t rows, int64_t cols, int64_t panels,
                                   kernels::Packed format)
    : slice_panels_(std::min(panels, kSliceOutputs / kernels::kPanelOutputs)) {
  constexpr int64_t kElement = 2, kSum = 4;
  const auto aligned = [](int64_t bytes) {
    return align_up(static_cast<uint64_t>(bytes), kDeviceAlignment);
  };
  const int64_t outputs = slice_panels_ * kernels::kPanelOutputs;
  sums_offset_ = weight_offset() + aligned(outputs * cols * kElement);
  inputs_offset_ = sums_offset_ + aligned(rows * outputs * kSum);
  bytes_ = inputs_offset_ +
           (format == kernels::Packed::kF16 ? aligned(rows * cols * kElement) : uint64_t{0});
}

uint64_t prefill_workspace_bytes(int max_rows, const WeightSpec& spec) {
  if (max_rows <= kMostPackedRows) return 0;
  const PackedLayout layout(spec);
  const auto count = static_cast<int>(spec.segments.size());
  const auto format = [&](int i) {
    return packed_format(spec.segments[static_cast<size_t>(i)].format);
  };
  uint64_t most = 0;
  for (int first = 0; first < count;) {
    int64_t panels = 0;
    int last = first;
    for (; last < count && format(last) == format(first); ++last) {
      if (last == first || !spec.paired) panels += layout.segment(last).panels;
    }
    if (has_plain_form(format(first), spec.cols)) {
      const PrefillWorkspace needed(max_rows, spec.cols, panels, format(first));
      most = std::max(most, needed.bytes());
    }
    first = last;
  }
  return most;
}

}  // namespace tandem
