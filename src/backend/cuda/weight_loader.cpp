#include "backend/cuda/weight_loader.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>

#include "backend/cuda/cuda_check.h"
#include "core/dtype.h"
#include "core/memory.h"
#include "core/size.h"

namespace tandem {
namespace {

constexpr size_t kSlotBytes = size_t{16} << 20;
/// Beyond these the memory, not the threads, sets the pace of reading.
constexpr int kMostReaders = 8;
constexpr size_t kLeastParallelBytes = size_t{1} << 20;

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

WeightLoader::WeightLoader(CudaMemory& memory)
    : memory_(memory), readers_(std::min(available_cores(), kMostReaders)) {}

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
  slot_bytes_ = align_up(std::max(bytes, kSlotBytes), kDeviceAlignment);
  for (Slot& slot : slots_) {
    if (slot.used) slot.packed->wait();
    slot.used = false;
    if (slot.host != nullptr) log_cuda(cudaFreeHost(slot.host), "cudaFreeHost", device);
    slot.host = nullptr;
    check_cuda(cudaMallocHost(&slot.host, slot_bytes_), "cudaMallocHost", device);
    if (slot.packed == nullptr) slot.packed = std::make_unique<CudaEvent>(device);
  }
}

std::byte* WeightLoader::staging(const TensorView& workspace) {
  const size_t bytes = slots_.size() * slot_bytes_;
  if (workspace.bytes() >= bytes) return workspace.as<std::byte>();
  if (own_staging_.bytes() < bytes)
    own_staging_ = DeviceBuffer(memory_, bytes, "staging of weights");
  return static_cast<std::byte*>(own_staging_.data());
}

void WeightLoader::read(const HostMatrix& matrix, int64_t first, int64_t rows, std::byte* to) {
  const size_t element = size_of(matrix.dtype);
  const size_t row_bytes = static_cast<size_t>(matrix.cols) * element;
  const size_t stride = static_cast<size_t>(matrix.row_stride) * element;
  const std::byte* from =
      static_cast<const std::byte*>(matrix.data) + static_cast<size_t>(first) * stride;
  const bool parallel = static_cast<size_t>(rows) * row_bytes >= kLeastParallelBytes;
  const int workers = parallel ? readers_.size() : 1;
  const auto copy = [&](int worker) {
    const WorkRange own = split_range(rows, worker, workers);
    if (stride == row_bytes) {
      const size_t offset = static_cast<size_t>(own.begin) * row_bytes;
      std::memcpy(to + offset, from + offset, static_cast<size_t>(own.end - own.begin) * row_bytes);
      return;
    }
    for (auto row = static_cast<size_t>(own.begin); row < static_cast<size_t>(own.end); ++row) {
      std::memcpy(to + row * row_bytes, from + row * stride, row_bytes);
    }
  };
  if (parallel) {
    readers_.run(copy);
  } else {
    copy(0);
  }
}

void WeightLoader::load(const HostMatrix& matrix, kernels::PackArgs target, CudaStream& stream,
                        const kernels::Launch& launch) {
  const int device = memory_.device().index;
  const size_t element = size_of(matrix.dtype);
  const size_t row_bytes = static_cast<size_t>(matrix.cols) * element;
  make_room(row_bytes * kernels::kPanelOutputs);
  std::byte* const device_slots = staging(stream.workspace());
  // Whole panels, because 4-bit halves of a panel share bytes.
  const auto slab_rows = static_cast<int64_t>(slot_bytes_ / row_bytes) / kernels::kPanelOutputs *
                         kernels::kPanelOutputs;
  for (int64_t first = 0; first < matrix.rows; first += slab_rows) {
    const int64_t rows = std::min(slab_rows, matrix.rows - first);
    Slot& slot = slots_[next_];
    std::byte* const on_device = device_slots + next_ * slot_bytes_;
    next_ = (next_ + 1) % slots_.size();
    if (slot.used) slot.packed->wait();
    read(matrix, first, rows, static_cast<std::byte*>(slot.host));
    check_cuda(cudaMemcpyAsync(on_device, slot.host, static_cast<size_t>(rows) * row_bytes,
                               cudaMemcpyHostToDevice, stream.handle()),
               "cudaMemcpyAsync to the device", device);
    target.source = on_device;
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
