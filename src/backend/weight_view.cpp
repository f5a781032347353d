#include "backend/weight_view.h"

#include "backend/backend.h"
#include "backend/cpu/packing.h"
#include "core/size.h"

namespace tandem {
namespace {

/// Inputs that share a scale and a zero point in `kInt4Group128`.
constexpr int64_t kInt4Group = 128;

/// Row-major as in the checkpoint; every array starts at a multiple of `kDeviceAlignment`.
uint64_t row_major_bytes(const WeightSpec& spec) {
  ArenaSize size;
  for (const WeightSpec::Segment& segment : spec.segments) {
    const auto rows = static_cast<uint64_t>(segment.rows);
    const uint64_t count = rows * static_cast<uint64_t>(spec.cols);
    switch (segment.format) {
      case WeightFormat::kF32:
        size.add_bytes(count * sizeof(float));
        break;
      case WeightFormat::kF16:
      case WeightFormat::kBF16:
        size.add_bytes(count * sizeof(uint16_t));
        break;
      case WeightFormat::kFp8E4M3:
        size.add_bytes(count).add_bytes(rows * sizeof(float));
        break;
      case WeightFormat::kInt4Group128: {
        const auto groups = static_cast<uint64_t>((spec.cols + kInt4Group - 1) / kInt4Group);
        size.add_bytes((count + 1) / 2);
        size.add_bytes(rows * groups * sizeof(float)).add_bytes(rows * groups * sizeof(float));
        break;
      }
    }
  }
  if (spec.has_bias) size.add_bytes(static_cast<uint64_t>(spec.rows()) * sizeof(float));
  return size.bytes();
}

}  // namespace

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
  return kind == DeviceKind::kCpu ? PanelSizes(spec).bytes() : row_major_bytes(spec);
}

}  // namespace tandem
