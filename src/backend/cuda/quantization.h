#pragma once

#include "kernels/quantization.h"

namespace tandem {

// The definition of the quantised formats is the kernels' own, because kernels include nothing of
// this tree; the CPU backend packs by it too.
using kernels::fp8_code;
using kernels::fp8_scale;
using kernels::fp8_value;
using kernels::int4_code;
using kernels::int4_scale;
using kernels::int4_value;
using kernels::inverse_scale;
using kernels::kInt4Group;

}  // namespace tandem
