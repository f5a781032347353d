#include "common.cuh"

namespace tandem::kernels {

template <Packed kFormat>
cudaError_t launch_matmul_rows(const MatmulArgs& args, Launch launch);
template <Packed kFormat>
cudaError_t launch_matmul_prefill(const MatmulArgs& args, Launch launch);

cudaError_t matmul_rows(const MatmulArgs& args, Launch launch) {
  switch (args.format) {
    case Packed::kBF16:
      return launch_matmul_rows<Packed::kBF16>(args, launch);
    case Packed::kF16:
      return launch_matmul_rows<Packed::kF16>(args, launch);
    case Packed::kFp8:
      return launch_matmul_rows<Packed::kFp8>(args, launch);
    case Packed::kInt4:
      return launch_matmul_rows<Packed::kInt4>(args, launch);
  }
  return cudaErrorInvalidValue;
}

cudaError_t matmul_prefill(const MatmulArgs& args, Launch launch) {
  switch (args.format) {
    case Packed::kBF16:
      return launch_matmul_prefill<Packed::kBF16>(args, launch);
    case Packed::kF16:
      return launch_matmul_prefill<Packed::kF16>(args, launch);
    case Packed::kFp8:
      return launch_matmul_prefill<Packed::kFp8>(args, launch);
    case Packed::kInt4:
      return launch_matmul_prefill<Packed::kInt4>(args, launch);
  }
  return cudaErrorInvalidValue;
}

}  // namespace tandem::kernels
