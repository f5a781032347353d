#include "weight_ring.cuh"

namespace tandem::kernels {

template <Packed kFormat>
cudaError_t launch_matmul_rows(const MatmulArgs& args, Launch launch);
template <Packed kFormat>
cudaError_t launch_matmul_prefill(const MatmulArgs& args, Launch launch);

int matmul_rows_shared_bytes(int capability) {
  int most = 0;
  for (const Packed format : {Packed::kBF16, Packed::kF16, Packed::kFp8, Packed::kInt4}) {
    const int bytes = shared_bytes(format, stages_of(capability));
    most = bytes > most ? bytes : most;
  }
  return most;
}

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
