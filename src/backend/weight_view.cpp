#include "backend/weight_view.h"

#include "backend/backend.h"
#include "backend/cpu/packing.h"
#include "backend/cuda/packed_weight.h"
#include "backend/cuda/prefill_workspace.h"

namespace tandem {

std::string_view name_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "float32";
    case WeightFormat::kF16:
      return "float16";
    case WeightFormat::kBF16:
      return "bfloat16";
    case WeightFormat::kFp8E4M3:
      return "fp8_e4m3";
    case WeightFormat::kInt4Group128:
      return "int4_group128";
  }
  return "?";
}

int64_t WeightSpec::rows() const {
  int64_t rows = 0;
  for (const Segment& segment : segments) rows += segment.rows;
  return rows;
}

uint64_t packed_weight_bytes(DeviceKind kind, const WeightSpec& spec) {
  return kind == DeviceKind::kCpu ? PanelSizes(spec).bytes() : PackedLayout(spec).bytes();
}

uint64_t matmul_workspace_bytes(DeviceKind kind, int max_rows, const WeightSpec& spec) {
  return kind == DeviceKind::kCpu ? 0 : prefill_workspace_bytes(max_rows, spec);
}

}  // namespace tandem
