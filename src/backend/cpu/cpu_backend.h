#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_memory.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"

namespace tandem {

/// The reference backend: float32 arithmetic on the stored weights, float32 activations and cache.
/// Ops run at once on the calling thread and the pool; streams are order alone.
///
/// Results depend neither on the number of rows of a pass (any number, not only up to 16) nor on
/// the number of threads: threads split outputs, never sums. They may differ between instruction
/// sets in the last bits.
class CpuBackend final : public Backend {
 public:
  struct Options {
    int threads = 0;                         ///< 0: all cores the process may use
    std::optional<uint64_t> capacity_bytes;  ///< of a simulated device; empty: the machine's memory
    std::optional<CpuIsa> isa;               ///< empty: the best one that the machine has
  };
  /// @throws UsageError when the machine lacks the instruction set asked for
  CpuBackend(DeviceId device, const Options& options);
  ~CpuBackend() override;

  DeviceId device() const override { return device_; }
  std::string description() const override;
  MemoryResource& memory() override { return memory_; }
  DType activation_dtype() const override { return DType::kF32; }
  DType kv_dtype() const override { return DType::kF32; }

  // Streams, copies, capture (cpu_backend.cpp)
  std::unique_ptr<Stream> make_stream() override;
  std::unique_ptr<Event> make_event() override;
  std::unique_ptr<Graph> capture(Stream& stream, const std::function<void()>& work) override;
  bool works_beside_host() const override { return false; }
  HostBuffer make_host_buffer(size_t bytes) override;
  void begin_range(const char*, int64_t) override {}
  void end_range() noexcept override {}
  void copy_to_device(void* device, const void* host, size_t bytes, Stream& stream) override;
  void copy_to_host(void* host, const void* device, size_t bytes, Stream& stream) override;
  void copy(void* to, const void* from, size_t bytes, Stream& stream) override;
  void fill_zero(void* data, size_t bytes, Stream& stream) override;

  // Weights (packing.cpp) and the forward (forward_ops.cpp, attention.cpp)
  WeightView load_weight(const WeightSpec& spec, std::span<const HostMatrix> segments,
                         std::span<const float> bias, void* destination, Stream& stream) override;
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

  // The round (round_*.cpp)
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

 private:
  /// Outside `memory()` and of every plan: it belongs to the thread, not to what a simulated device
  /// stands for. A worker keeps the largest that it ever needed: `attention_scratch_floats` of 16
  /// rows, for sampled tokens 2 vocabularies, for log-probabilities 1.
  ///
  /// Work memory of one worker: at least `count` floats, 64-byte aligned, contents undefined. Grows
  /// and stays; a later call of the same worker may return the same memory.
  float* scratch(int worker, size_t count);

  DeviceId device_;
  CpuMemory memory_;
  ThreadPool pool_;
  const CpuKernels& kernels_;
  CpuIsa isa_;

  struct alignas(64) Scratch {
    std::unique_ptr<float, AlignedDelete> data;
    size_t count = 0;
  };
  std::vector<Scratch> scratch_;
};

}  // namespace tandem
