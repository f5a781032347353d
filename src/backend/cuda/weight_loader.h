#pragma once

#include <array>
#include <memory>

#include "backend/cpu/thread_pool.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/cuda_stream.h"
#include "backend/weight_view.h"
#include "kernels/kernels.h"

namespace tandem {

/// Brings host matrices to the device through pinned staging buffers, so that reading the
/// checkpoint with several threads, the transfer and the packing overlap. Serves one stream.
class WeightLoader {
 public:
  explicit WeightLoader(CudaMemory& memory);
  ~WeightLoader();
  WeightLoader(const WeightLoader&) = delete;
  WeightLoader& operator=(const WeightLoader&) = delete;

  /// Packs one segment; the matrix has been read when this returns. `target` says where to and how;
  /// its source fields are filled in here. Stages in the stream's workspace where that is large
  /// enough.
  void load(const HostMatrix& matrix, kernels::PackArgs target, CudaStream& stream,
            const kernels::Launch& launch);

 private:
  static constexpr size_t kSlots = 4;
  struct Slot {
    void* host = nullptr;
    std::unique_ptr<CudaEvent> packed;  ///< recorded when the slot may be filled again
    bool used = false;
  };
  void make_room(size_t bytes);
  /// Device memory for all slots.
  std::byte* staging(const TensorView& workspace);
  void read(const HostMatrix& matrix, int64_t first, int64_t rows, std::byte* to);

  CudaMemory& memory_;
  ThreadPool readers_;
  size_t slot_bytes_ = 0;
  DeviceBuffer own_staging_;  ///< where no workspace serves
  std::array<Slot, kSlots> slots_;
  size_t next_ = 0;
};

}  // namespace tandem
