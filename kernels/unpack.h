#pragma once

#include "kernels.h"

namespace tandem::kernels {

// What stands around a library's product of plain matrices: out = x W^T with W packed.

/// `count` panels as a row-major matrix (16 count, cols) of 16-bit elements; cols a multiple of 8.
/// fp8 codes become bfloat16, exactly and without their scales. Not for 4-bit weights.
cudaError_t unpack(const void* panels, int64_t count, int64_t cols, Packed format, void* matrix,
                   Launch launch);

/// What `args.epilogue` does with the sums of `panels` panels from `first_panel` on: scales, bias,
/// gate, residual.
/// @param sums (rows, 16 panels)
cudaError_t finish_products(const MatmulArgs& args, const float* sums, int64_t first_panel,
                            int64_t panels, Launch launch);

/// `count` elements, a multiple of 8; what float16 cannot hold becomes its largest number.
cudaError_t bf16_to_f16(const void* from, void* to, int64_t count, Launch launch);

}  // namespace tandem::kernels
