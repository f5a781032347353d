#include "matmul_prefill.cuh"

namespace tandem::kernels {

template cudaError_t launch_matmul_prefill<Packed::kInt4>(const MatmulArgs& args, Launch launch);

}  // namespace tandem::kernels
