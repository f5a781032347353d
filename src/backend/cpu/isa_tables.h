#pragma once

#include "backend/cpu/kernels.h"

namespace tandem {

// One table for each file kernels_<isa>.cpp, compiled for that instruction set; call only where
// has_isa says so.
extern const CpuKernels kPortableKernels;
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;

}  // namespace tandem
