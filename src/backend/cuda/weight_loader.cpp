#include "backend/cuda/weight_loader.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>

#include "backend/cuda/cuda_check.h"
#include "core/dtype.h"
#include "core/size.h"

namespace tandem {
namespace {

kernels::Source source_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return kernels::Source::kF32;
    case DType::kF16:
      return kernels::Source::kF16;
    default:
      return kernels::Source::kBF16;
  }
}

}  // namespace

WeightLoader::WeightLoader(CudaMemory& memory) : memory_(memory) {}

WeightLoader::~WeightLoader() {
  const int device = memory_.device().index;
  for (Slot& slot : slots_) {
    if (slot.used)
      log_cuda(cudaEventSynchronize(slot.packed->handle()), "cudaEventSynchronize", device);
    if (slot.host != nullptr) log_cuda(cudaFreeHost(slot.host), "cudaFreeHost", device);
  }
}

void WeightLoader::make_room(size_t bytes) {
  if (slot_bytes_ >= bytes) return;
  const int device = memory_.device().index;
  slot_bytes_ = std::max(bytes, kSlotBytes);
  for (Slot& slot : slots_) {
    if (slot.used) slot.packed->wait();
    slot.used = false;
    if (slot.host != nullptr) log_cuda(cudaFreeHost(slot.host), "cudaFreeHost", device);
    slot.host = nullptr;
    check_cuda(cudaMallocHost(&slot.host, slot_bytes_), "cudaMallocHost", device);
    slot.device = DeviceBuffer(memory_, slot_bytes_, "staging of weights");
    if (slot.packed == nullptr) slot.packed = std::make_unique<CudaEvent>(device);
  }
}

void WeightLoader::load(const HostMatrix& matrix, kernels::PackArgs target, CudaStream& stream,
                        const kernels::Launch& launch) {
  const int device = memory_.device().index;
  const size_t element = size_of(matrix.dtype);
  const size_t row_bytes = static_cast<size_t>(matrix.cols) * element;
  make_room(row_bytes * kernels::kPanelOutputs);
  // Whole panels, because 4-bit halves of a panel share bytes.
  const auto slab_rows = static_cast<int64_t>(slot_bytes_ / row_bytes) / kernels::kPanelOutputs *
                         kernels::kPanelOutputs;
  const auto* from = static_cast<const std::byte*>(matrix.data);
  for (int64_t first = 0; first < matrix.rows; first += slab_rows) {
    const int64_t rows = std::min(slab_rows, matrix.rows - first);
    Slot& slot = slots_[next_];
    next_ = (next_ + 1) % slots_.size();
    if (slot.used) slot.packed->wait();
    auto* to = static_cast<std::byte*>(slot.host);
    const size_t stride = static_cast<size_t>(matrix.row_stride) * element;
    const std::byte* start = from + static_cast<size_t>(first) * stride;
    if (stride == row_bytes) {
      std::memcpy(to, start, static_cast<size_t>(rows) * row_bytes);
    } else {
      for (int64_t row = 0; row < rows; ++row) {
        std::memcpy(to + static_cast<size_t>(row) * row_bytes,
                    start + static_cast<size_t>(row) * stride, row_bytes);
      }
    }
    check_cuda(cudaMemcpyAsync(slot.device.data(), slot.host, static_cast<size_t>(rows) * row_bytes,
                               cudaMemcpyHostToDevice, stream.handle()),
               "cudaMemcpyAsync to the device", device);
    target.source = slot.device.data();
    target.source_type = source_of(matrix.dtype);
    target.rows = rows;
    target.cols = matrix.cols;
    target.first_row = first;
    check_cuda(kernels::pack(target, launch), "pack", device);
    stream.record(*slot.packed);
    slot.used = true;
  }
}

}  // namespace tandem
