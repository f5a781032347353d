#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/cuda_stream.h"
#include "kernels/kernels.h"

namespace tandem {

class LibraryMatmul;

/// One GPU. Activations and cache are bfloat16, sums float32. Checks shapes, chooses kernels and
/// launches them; the kernels stand in kernels/.
class CudaBackend final : public Backend {
 public:
  /// @throws UsageError when the machine has no such GPU; DeviceError
  explicit CudaBackend(DeviceId device);
  ~CudaBackend() override;

  DeviceId device() const override { return device_; }
  std::string description() const override { return description_; }
  MemoryResource& memory() override { return memory_; }
  DType activation_dtype() const override { return DType::kBF16; }
  DType kv_dtype() const override { return DType::kBF16; }

  // Streams, copies, capture (cuda_backend.cpp)
  std::unique_ptr<Stream> make_stream() override;
  std::unique_ptr<Event> make_event() override;
  std::unique_ptr<Graph> capture(Stream& stream, const std::function<void()>& work) override;
  bool works_beside_host() const override { return true; }
  HostBuffer make_host_buffer(size_t bytes) override;
  void copy_to_device(void* device, const void* host, size_t bytes, Stream& stream) override;
  void copy_to_host(void* host, const void* device, size_t bytes, Stream& stream) override;
  void copy(void* to, const void* from, size_t bytes, Stream& stream) override;
  void fill_zero(void* data, size_t bytes, Stream& stream) override;

  // Ranges for profilers (nvtx_ranges.cpp, no_nvtx.cpp)
  void begin_range(const char* name, int64_t number) override;
  void end_range() noexcept override;
  void lend_workspace(TensorView memory, Stream& stream) override;

  // Weights (cuda_weights.cpp)
  WeightView load_weight(const WeightSpec& spec, std::span<const HostMatrix> segments,
                         std::span<const float> bias, void* destination, Stream& stream) override;

  // The forward (cuda_forward.cpp)
  void embed(const Rows& rows, const WeightView& table, TensorView hidden, Stream& stream) override;
  void rms_norm(TensorView x, TensorView weight, float eps, TensorView out,
                Stream& stream) override;
  void matmul(TensorView x, const WeightView& weight, Epilogue epilogue, TensorView out,
              Stream& stream) override;
  void matmul_add_norm(TensorView x, const WeightView& weight, TensorView hidden,
                       TensorView norm_weight, const NormedRows& normed, Stream& stream) override;
  void matmul_normed(const NormedRows& x, const WeightView& weight, Epilogue epilogue,
                     TensorView out, Stream& stream) override;
  void rope_angles(const Rows& rows, TensorView inv_freq, TensorView angles,
                   Stream& stream) override;
  void rope_and_append(const Rows& rows, TensorView qkv, TensorView angles, TensorView q_norm,
                       TensorView k_norm, float eps, int heads, const KvLayerView& cache,
                       Stream& stream) override;
  void attention(const Rows& rows, TensorView qkv, int heads, float scale, const KvLayerView& cache,
                 TensorView out, Stream& stream) override;
  void append_and_attend(const Rows& rows, TensorView qkv, TensorView angles, TensorView q_norm,
                         TensorView k_norm, float eps, int heads, float scale,
                         const KvLayerView& cache, TensorView out, Stream& stream) override;
  void add(TensorView x, TensorView out, Stream& stream) override;
  void add_parts(TensorView parts, TensorView out, Stream& stream) override;
  void add_parts_norm(TensorView parts, TensorView hidden, TensorView norm_weight,
                      const NormedRows& normed, Stream& stream) override;

  // The round (cuda_round.cpp)
  void round_rows(const RoundView& round, int first, int cache_sequence, const Rows& rows,
                  Stream& stream) override;
  void argmax(const RoundView& round, TensorView logits, const SamplingTransform& transform,
              int prefix, const uint8_t* allowed, int32_t* ids, Stream& stream) override;
  void share_argmax(TensorView logits, int first_id, TensorView choices, Stream& stream) override;
  void join_argmax(TensorView choices, int32_t* ids, Stream& stream) override;
  void distribution(const RoundView& round, TensorView logits, const SamplingTransform& transform,
                    int prefix, const uint8_t* allowed, TensorView probs, Stream& stream) override;
  void sample(const RoundView& round, TensorView probs, int first, RandomPurpose purpose,
              int32_t* ids, Stream& stream) override;
  void gumbel_argmax(const RoundView& round, TensorView probs, int first, int32_t* ids,
                     Stream& stream) override;
  void accept(const RoundView& round, AcceptRule rule, int num_drafts, Stream& stream) override;
  void expected_acceptance(const RoundView& round, int num_drafts, float* out,
                           Stream& stream) override;
  void commit(const RoundView& round, Stream& stream) override;
  void log_probabilities(TensorView logits, const int32_t* ids, int top, float* logprobs,
                         int32_t* top_ids, float* top_logprobs, float* logsumexp,
                         Stream& stream) override;

  /// The kernels' view of a norm that a sum of `hidden` leaves. @throws ShapeError
  static kernels::NormArgs norm_args(const TensorView& hidden, const TensorView& norm_weight,
                                     const NormedRows& normed);

  /// Makes this device the calling thread's, and says how the next kernel of `stream` is launched.
  kernels::Launch launch(Stream& stream);

 private:
  /// Multiplies the packed panels with a few rows at a time.
  void multiply_packed(const kernels::MatmulArgs& args, Stream& stream);
  /// Multiplies through cuBLASLt; false, and nothing done, where the packed kernels have to
  /// (cuda_prefill.cpp).
  bool multiply_by_library(const kernels::MatmulArgs& args, Stream& stream);
  void use_device() const;
  /// Where a pass's attention leaves its parts' sums: in what was lent, or where that is too small
  /// in memory of the stream's own.
  float* attention_partials(int heads, const kernels::CacheArgs& cache, CudaStream& stream) const;
  /// Multiplies run by run of equal formats; `args` says what `matmul` has no word for.
  void multiply(TensorView x, const WeightView& weight, Epilogue epilogue, TensorView out,
                kernels::MatmulArgs args, Stream& stream);
  /// `attention`; with angles in `args` it norms, rotates and appends first (16 rows at most).
  void attend(const Rows& rows, TensorView qkv, kernels::AttentionArgs args, int heads, float scale,
              const KvLayerView& cache, TensorView out, Stream& stream);
  void check(cudaError_t status, const char* call) const;

  DeviceId device_;
  CudaMemory memory_;
  std::string description_;
  int multiprocessors_ = 1;
  int capability_ = 0;  ///< of the kernels' code
  int block_shared_bytes_ = 0;
  std::unique_ptr<LibraryMatmul> library_;  ///< made by the first wide product
};

}  // namespace tandem
