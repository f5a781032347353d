#include "matmul_rows.cuh"

namespace tandem::kernels {

template cudaError_t launch_matmul_rows<Packed::kFp8>(const MatmulArgs& args, Launch launch);

}  // namespace tandem::kernels
