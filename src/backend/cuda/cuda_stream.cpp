#include "backend/cuda/cuda_stream.h"

#include "backend/cuda/cuda_check.h"
#include "backend/cuda/weight_loader.h"
#include "tandem/error.h"

namespace tandem {

CudaEvent::CudaEvent(int device) : device_(device) {
  check_cuda(cudaEventCreate(&event_), "cudaEventCreate", device_);
}
CudaEvent::~CudaEvent() { log_cuda(cudaEventDestroy(event_), "cudaEventDestroy", device_); }

void CudaEvent::wait() {
  check_cuda(cudaEventSynchronize(event_), "cudaEventSynchronize", device_);
}

bool CudaEvent::done() const {
  const cudaError_t status = cudaEventQuery(event_);
  if (status == cudaErrorNotReady) return false;
  check_cuda(status, "cudaEventQuery", device_);
  return true;
}

double CudaEvent::seconds_since(const Event& earlier) const {
  constexpr double kSecondsPerMillisecond = 1e-3;
  float milliseconds = 0;
  check_cuda(
      cudaEventElapsedTime(&milliseconds, static_cast<const CudaEvent&>(earlier).event_, event_),
      "cudaEventElapsedTime", device_);
  return static_cast<double>(milliseconds) * kSecondsPerMillisecond;
}

CudaStream::CudaStream(MemoryResource& memory) : device_(memory.device().index), memory_(memory) {
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
             "cudaStreamCreateWithFlags", device_);
}
CudaStream::~CudaStream() {
  // Scratch memory must outlive the kernels that use it.
  log_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize", device_);
  log_cuda(cudaStreamDestroy(stream_), "cudaStreamDestroy", device_);
}

void CudaStream::record(Event& event) {
  check_cuda(cudaEventRecord(static_cast<CudaEvent&>(event).handle(), stream_), "cudaEventRecord",
             device_);
  forbid_overlap();
}

void CudaStream::wait(const Event& event) {
  check_cuda(cudaStreamWaitEvent(stream_, static_cast<const CudaEvent&>(event).handle(), 0),
             "cudaStreamWaitEvent", device_);
  forbid_overlap();
}

void CudaStream::synchronize() {
  check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize", device_);
}

WeightLoader& CudaStream::loader(CudaMemory& memory) {
  if (loader_ == nullptr) loader_ = std::make_unique<WeightLoader>(memory);
  return *loader_;
}

void* CudaStream::scratch(Scratch purpose, size_t bytes) {
  DeviceBuffer& buffer = scratch_[static_cast<size_t>(purpose)];
  if (buffer.bytes() < bytes) {
    DeviceBuffer larger(memory_, bytes, "scratch memory");
    clear(larger);
    std::swap(buffer, larger);
    outgrown_.push_back(std::move(larger));
  }
  return buffer.data();
}

void CudaStream::clear(const DeviceBuffer& buffer) const {
  // Beside this stream: in a graph that is being captured it would be cleared in every launch.
  cudaStream_t aside = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&aside, cudaStreamNonBlocking), "cudaStreamCreateWithFlags",
             device_);
  cudaError_t status = cudaMemsetAsync(buffer.data(), 0, buffer.bytes(), aside);
  if (status == cudaSuccess) status = cudaStreamSynchronize(aside);
  log_cuda(cudaStreamDestroy(aside), "cudaStreamDestroy", device_);
  check_cuda(status, "cudaMemsetAsync", device_);
}

CudaGraph::CudaGraph(int device, cudaGraph_t graph) : device_(device) {
  const cudaError_t status = cudaGraphInstantiate(&exec_, graph, 0);
  log_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy", device_);
  check_cuda(status, "cudaGraphInstantiate", device_);
}
CudaGraph::~CudaGraph() { log_cuda(cudaGraphExecDestroy(exec_), "cudaGraphExecDestroy", device_); }

void CudaGraph::launch(Stream& stream) {
  auto& target = static_cast<CudaStream&>(stream);
  check_cuda(cudaGraphLaunch(exec_, target.handle()), "cudaGraphLaunch", device_);
  target.forbid_overlap();
}

}  // namespace tandem
