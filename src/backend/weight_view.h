#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace tandem {

/// How the elements of a weight matrix are stored on a device.
enum class WeightFormat : uint8_t { kF32, kF16, kBF16, kFp8E4M3, kInt4Group128 };

std::string_view name_of(WeightFormat format);

/// What a (possibly fused) weight looks like before it exists: y = x W^T with W (sum of rows,
/// cols). A fused weight, such as q/k/v in one, is a list of segments that share `cols`.
struct WeightSpec {
  struct Segment {
    int64_t rows = 0;  ///< outputs of this segment
    WeightFormat format = WeightFormat::kBF16;
  };
  int64_t cols = 0;  ///< inputs
  std::vector<Segment> segments;
  /// Two equal segments, gate then up, whose outputs are wanted side by side: a backend may
  /// interleave them.
  bool paired = false;
  bool has_bias = false;

  int64_t rows() const;
};

/// A weight on a device, laid out as its backend likes it (`Backend::load_weight`); only that
/// backend reads `data`.
struct WeightView {
  static constexpr int kMaxSegments = 3;
  struct Segment {
    WeightFormat format = WeightFormat::kBF16;
    int64_t rows = 0;
    const std::byte* data = nullptr;
    const float* scales = nullptr;  ///< quantised formats only
    const float* zeros = nullptr;   ///< asymmetric formats only
    int group_size = 0;             ///< inputs that share a scale; 0: the whole row
  };
  int64_t rows = 0;  ///< outputs in all
  int64_t cols = 0;
  int64_t first_row =
      0;  ///< of a table that holds a share of the vocabulary: the id of its first row
  std::array<Segment, kMaxSegments> segments;
  int segment_count = 0;
  bool paired = false;
  const float* bias = nullptr;  ///< (rows) float32, or null

  bool empty() const { return segment_count == 0; }
};

/// A matrix in host memory, as a checkpoint stores it: row-major with a row stride, so that a shard
/// is a window of it.
struct HostMatrix {
  const void* data = nullptr;
  DType dtype = DType::kBF16;  ///< f32, f16 or bf16
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  ///< elements
};

}  // namespace tandem
