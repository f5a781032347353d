#pragma once

#include <cstdint>

namespace tandem::kernels {

// How a weight matrix W (outputs, inputs) lies in device memory. Pure arithmetic, no CUDA types.
//
// A panel is 16 outputs; the last one is filled up with zero rows. A panel is a run of blocks of 64
// inputs (the last one filled up with zeros), and a block holds, for every lane of a warp, what the
// tensor cores' 16x16 operand wants from it, so that a warp reads whole 512-byte lines. Within each
// 32 inputs they are dealt so that a lane's share of the other operand is 8 consecutive inputs:
// lane (g, t), g = lane / 4, t = lane % 4, holds outputs g and g + 8 and inputs 8 t ... 8 t + 7.

constexpr int kPanelOutputs = 16;
constexpr int kBlockInputs = 64;
constexpr int kWarpLanes = 32;

/// Formats of packed weights.
enum class Packed : int { kBF16 = 0, kF16 = 1, kFp8 = 2, kInt4 = 3 };

/// Bytes of one block of one panel. 4-bit blocks end in 16 bfloat16 scales, one for each output.
constexpr int block_bytes(Packed format) {
  switch (format) {
    case Packed::kBF16:
    case Packed::kF16:
      return kPanelOutputs * kBlockInputs * 2;
    case Packed::kFp8:
      return kPanelOutputs * kBlockInputs;
    case Packed::kInt4:
      return kPanelOutputs * kBlockInputs / 2 + kPanelOutputs * 2;
  }
  return 0;
}

constexpr int64_t blocks_of(int64_t inputs) { return (inputs + kBlockInputs - 1) / kBlockInputs; }
constexpr int64_t panels_of(int64_t outputs) {
  return (outputs + kPanelOutputs - 1) / kPanelOutputs;
}
/// A panel of a paired weight holds 8 gate outputs, then the 8 up outputs of the same columns.
constexpr int64_t paired_panels_of(int64_t columns) {
  return (columns + kPanelOutputs / 2 - 1) / (kPanelOutputs / 2);
}
constexpr int64_t panel_bytes(Packed format, int64_t inputs) {
  return blocks_of(inputs) * block_bytes(format);
}

}  // namespace tandem::kernels
