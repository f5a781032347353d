#include "backend/cuda/cuda_backend.h"

// The stand-in for ranges where CMake found no NVTX headers.
namespace tandem {

void CudaBackend::begin_range(const char*, int64_t) {}

void CudaBackend::end_range() noexcept {}

}  // namespace tandem
