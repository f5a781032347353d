#include "backend/cuda/library_matmul.h"

#include <string>

#include "core/log.h"
#include "tandem/error.h"

namespace tandem {
namespace {

constexpr uint32_t kAlignment = 16;

[[noreturn]] void fail(int device, const char* call, const std::string& what) {
  throw DeviceError("cuda:" + std::to_string(device) + ": " + call + " failed: " + what +
                    "; check that the installed cuBLAS belongs to this CUDA version");
}

}  // namespace

void LibraryMatmul::check(cublasStatus_t status, const char* call) const {
  if (status != CUBLAS_STATUS_SUCCESS) fail(device_, call, cublasLtGetStatusString(status));
}

/// The library's words for a shape. Its matrices lie by columns: W^T (inputs, outputs), x^T
/// (inputs, rows), out^T (outputs, rows).
class LibraryMatmul::Description {
 public:
  Description(const LibraryMatmul& owner, const Shape& shape) {
    const cudaDataType_t input = shape.float16 ? CUDA_R_16F : CUDA_R_16BF;
    const cudaDataType_t output = shape.out_float32 ? CUDA_R_32F : CUDA_R_16BF;
    const auto columns = [](int64_t n) { return static_cast<uint64_t>(n); };
    const cublasOperation_t transposed = CUBLAS_OP_T;
    try {
      owner.check(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                  "cublasLtMatmulDescCreate");
      owner.check(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                 sizeof(transposed)),
                  "cublasLtMatmulDescSetAttribute");
      owner.check(cublasLtMatrixLayoutCreate(&weight, input, columns(shape.inputs),
                                             columns(shape.outputs), shape.inputs),
                  "cublasLtMatrixLayoutCreate");
      owner.check(cublasLtMatrixLayoutCreate(&x, input, columns(shape.inputs), columns(shape.rows),
                                             shape.inputs),
                  "cublasLtMatrixLayoutCreate");
      owner.check(cublasLtMatrixLayoutCreate(&out, output, columns(shape.outputs),
                                             columns(shape.rows), shape.out_stride),
                  "cublasLtMatrixLayoutCreate");
    } catch (...) {
      release();
      throw;
    }
  }
  ~Description() { release(); }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;

  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t weight = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t out = nullptr;

 private:
  void release() noexcept {
    for (cublasLtMatrixLayout_t layout : {weight, x, out}) {
      if (layout != nullptr) (void)cublasLtMatrixLayoutDestroy(layout);
    }
    if (product != nullptr) (void)cublasLtMatmulDescDestroy(product);
  }
};

LibraryMatmul::LibraryMatmul(int device) : device_(device) {
  check(cublasLtCreate(&handle_), "cublasLtCreate");
}

LibraryMatmul::~LibraryMatmul() {
  const cublasStatus_t status = cublasLtDestroy(handle_);
  if (status == CUBLAS_STATUS_SUCCESS) return;
  try {
    log().error("cuda:{}: cublasLtDestroy failed: {}", device_, cublasLtGetStatusString(status));
  } catch (...) {  // nothing is left to tell it to
  }
}

const cublasLtMatmulAlgo_t& LibraryMatmul::algorithm(const Shape& shape,
                                                     const Description& description,
                                                     uint64_t workspace_bytes) {
  const auto known = algorithms_.find(shape);
  if (known != algorithms_.end()) return known->second;
  struct Preference {
    cublasLtMatmulPreference_t handle = nullptr;
    ~Preference() {
      if (handle != nullptr) (void)cublasLtMatmulPreferenceDestroy(handle);
    }
  } preference;
  check(cublasLtMatmulPreferenceCreate(&preference.handle), "cublasLtMatmulPreferenceCreate");
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference.handle, attribute, &value, sizeof(value)),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(attribute, kAlignment);
  }
  cublasLtMatmulHeuristicResult_t best;
  int found = 0;
  check(cublasLtMatmulAlgoGetHeuristic(handle_, description.product, description.weight,
                                       description.x, description.out, description.out,
                                       preference.handle, 1, &best, &found),
        "cublasLtMatmulAlgoGetHeuristic");
  if (found == 0) {
    fail(device_, "cublasLtMatmulAlgoGetHeuristic",
         "no algorithm for " + std::to_string(shape.rows) + " rows, " +
             std::to_string(shape.outputs) + " outputs, " + std::to_string(shape.inputs) +
             " inputs");
  }
  return algorithms_.emplace(shape, best.algo).first->second;
}

void LibraryMatmul::run(const Shape& shape, const Operands& operands, cudaStream_t stream) {
  const Description description(*this, shape);
  const cublasLtMatmulAlgo_t& chosen = algorithm(shape, description, operands.workspace_bytes);
  const float alpha = 1, beta = shape.accumulate ? 1.0f : 0.0f;
  check(cublasLtMatmul(handle_, description.product, &alpha, operands.weight, description.weight,
                       operands.x, description.x, &beta, operands.out, description.out,
                       operands.out, description.out, &chosen, operands.workspace,
                       operands.workspace_bytes, stream),
        "cublasLtMatmul");
}

}  // namespace tandem
