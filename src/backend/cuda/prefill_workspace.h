#pragma once

#include <cstdint>

#include "backend/weight_view.h"
#include "kernels/packed_layout.h"

namespace tandem {

/// Passes of more rows multiply plain matrices with cuBLASLt, narrower ones the packed panels, 16
/// rows at a time: three sweeps over the weights cost less than unpacking them.
inline constexpr int kMostPackedRows = 48;

/// Whether a product can go through the library: 4-bit weights times their scales are no 16-bit
/// numbers, and the library wants rows that begin at multiples of 16 bytes.
constexpr bool has_plain_form(kernels::Packed format, int64_t cols) {
  return format != kernels::Packed::kInt4 && cols % 8 == 0;
}

/// What a product through cuBLASLt works in: the library's own workspace, a slice of the weight as
/// a plain matrix, that slice's sums, and the rows in float16 where the weight is. Pure arithmetic.
class PrefillWorkspace {
 public:
  PrefillWorkspace(int64_t rows, int64_t cols, int64_t panels, kernels::Packed format);

  int64_t slice_panels() const { return slice_panels_; }
  uint64_t library_bytes() const { return kLibraryBytes; }
  uint64_t weight_offset() const { return kLibraryBytes; }
  uint64_t sums_offset() const { return sums_offset_; }
  uint64_t inputs_offset() const { return inputs_offset_; }
  uint64_t bytes() const { return bytes_; }

 private:
  /// What cuBLASLt's best algorithms ask for on current devices.
  static constexpr uint64_t kLibraryBytes = uint64_t{32} << 20;
  /// Outputs of a slice: with 2,048 rows they make two full waves of 128 x 256 tiles on a Hopper.
  static constexpr int64_t kSliceOutputs = 4096;

  int64_t slice_panels_;
  uint64_t sums_offset_;
  uint64_t inputs_offset_;
  uint64_t bytes_;
};

/// The most that products of up to `max_rows` rows with the weight work in; 0 where none goes
/// through the library.
uint64_t prefill_workspace_bytes(int max_rows, const WeightSpec& spec);

}  // namespace tandem
