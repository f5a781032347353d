#pragma once

#include <cublasLt.h>

#include <compare>
#include <cstdint>
#include <map>

namespace tandem {

/// out = x W^T on plain matrices through cuBLASLt. The algorithm of a shape is chosen once, by the
/// library's own estimate, so that equal passes give equal bits. Move-only, one thread at a time.
class LibraryMatmul {
 public:
  /// @throws DeviceError
  explicit LibraryMatmul(int device);
  ~LibraryMatmul();
  LibraryMatmul(const LibraryMatmul&) = delete;
  LibraryMatmul& operator=(const LibraryMatmul&) = delete;

  /// W (outputs, inputs) and x (rows, inputs) bfloat16 or float16; out (rows, out_stride) float32
  /// or, for bfloat16 inputs, bfloat16. Every row begins at a multiple of 16 bytes.
  struct Shape {
    int64_t rows = 0;
    int64_t outputs = 0;
    int64_t inputs = 0;
    int64_t out_stride = 0;
    bool float16 = false;
    bool out_float32 = false;
    bool accumulate = false;  ///< out += x W^T
    auto operator<=>(const Shape&) const = default;
  };
  struct Operands {
    const void* weight = nullptr;
    const void* x = nullptr;
    void* out = nullptr;
    void* workspace = nullptr;
    uint64_t workspace_bytes = 0;
  };
  /// @throws DeviceError
  void run(const Shape& shape, const Operands& operands, cudaStream_t stream);

 private:
  class Description;
  const cublasLtMatmulAlgo_t& algorithm(const Shape& shape, const Description& description,
                                        uint64_t workspace_bytes);
  void check(cublasStatus_t status, const char* call) const;

  int device_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Shape, cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace tandem
