#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "core/memory.h"
#include "core/stream.h"
#include "core/tensor_view.h"

namespace tandem {

class CudaMemory;
class WeightLoader;

class CudaEvent final : public Event {
 public:
  explicit CudaEvent(int device);
  ~CudaEvent() override;
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  void wait() override;
  bool done() const override;
  double seconds_since(const Event& earlier) const override;
  cudaEvent_t handle() const { return event_; }

 private:
  int device_;
  cudaEvent_t event_ = nullptr;
};

/// Scratch memory that a stream's ops share by purpose; two ops of one stream never overlap.
enum class Scratch : uint8_t { kAttentionCounts, kAttentionPartials, kRound, kCount };

class CudaStream final : public Stream {
 public:
  explicit CudaStream(MemoryResource& memory);
  ~CudaStream() override;
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  void record(Event& event) override;
  void wait(const Event& event) override;
  void synchronize() override;
  void* native_handle() override {
    forbid_overlap();
    return stream_;
  }
  cudaStream_t handle() const { return stream_; }

  /// At least `bytes`, cleared when first handed out. Grows only; what a captured graph was given
  /// stays alive with the stream, so run the widest pass once before capturing.
  void* scratch(Scratch purpose, size_t bytes);

  /// Memory of the caller's own to work in: Backend::lend_workspace.
  void lend(TensorView memory) { workspace_ = memory; }
  const TensorView& workspace() const { return workspace_; }

  /// What brings weights in on this stream, made when first asked for: its staging memory goes with
  /// the stream.
  WeightLoader& loader(CudaMemory& memory);

  /// Whether the next kernel may start before the work in front of it is done. Not after copies and
  /// waits: only kernels know how to wait on the device.
  bool take_overlap() { return std::exchange(after_kernel_, true); }
  void forbid_overlap() { after_kernel_ = false; }

 private:
  void clear(const DeviceBuffer& buffer) const;

  int device_;
  MemoryResource& memory_;
  cudaStream_t stream_ = nullptr;
  bool after_kernel_ = false;
  TensorView workspace_;
  std::unique_ptr<WeightLoader> loader_;
  std::array<DeviceBuffer, static_cast<size_t>(Scratch::kCount)> scratch_;
  std::vector<DeviceBuffer> outgrown_;
};

/// A captured run of work. Launch it on the stream it was captured on, or after that one's work:
/// both use that stream's scratch memory.
class CudaGraph final : public Graph {
 public:
  CudaGraph(int device, cudaGraph_t graph);
  ~CudaGraph() override;
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  void launch(Stream& stream) override;

 private:
  int device_;
  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace tandem
