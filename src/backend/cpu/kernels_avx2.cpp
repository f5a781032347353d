#include "backend/cpu/isa_tables.h"
#include "backend/cpu/vec_avx2.h"
#include "backend/cpu/words_avx2.h"
// After the vectors that they are written in.
#include "backend/cpu/attention_impl.h"
#include "backend/cpu/matmul_impl.h"
#include "backend/cpu/philox_impl.h"
#include "backend/cpu/row_ops_impl.h"

namespace tandem {

const CpuKernels kAvx2Kernels = {
    .matmul_bf16 = matmul<BFloat16Line>,
    .matmul_f16 = matmul<Float16Line>,
    .matmul_f32 = matmul<Float32Line>,
    .matmul_fp8 = matmul<Fp8Line>,
    .matmul_int4 = matmul<Int4Line>,
    .attention = attention,
    .rms_norm = rms_norm,
    .rotate = rotate,
    .add = add_row,
    .max = max_row,
    .exp_sum = exp_sum,
    .scale = scale_row,
    .philox_blocks = philox_blocks,
};

}  // namespace tandem
