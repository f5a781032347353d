#pragma once

#include <array>
#include <memory>

#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/cuda_stream.h"
#include "backend/weight_view.h"
#include "kernels/kernels.h"

namespace tandem {

/// Brings host matrices to the device through two pinned staging buffers, so that reading the
/// checkpoint, the transfer and the packing overlap. Move-only.
class WeightLoader {
 public:
  explicit WeightLoader(CudaMemory& memory);
  ~WeightLoader();
  WeightLoader(const WeightLoader&) = delete;
  WeightLoader& operator=(const WeightLoader&) = delete;

  /// Packs one segment. `target` says where to and how; its source fields are filled in here.
  void load(const HostMatrix& matrix, kernels::PackArgs target, CudaStream& stream,
            const kernels::Launch& launch);

 private:
  static constexpr size_t kSlotBytes = size_t{8} << 20;
  struct Slot {
    void* host = nullptr;
    DeviceBuffer device;
    std::unique_ptr<CudaEvent> packed;  ///< recorded when the slot may be filled again
    bool used = false;
  };
  void make_room(size_t bytes);

  CudaMemory& memory_;
  size_t slot_bytes_ = 0;
  std::array<Slot, 2> slots_;
  size_t next_ = 0;
};

}  // namespace tandem
