#pragma once

#include <cstdint>

namespace tandem {

/// The word in mapped host memory that kernels look at while they wait for another GPU: not 0 makes
/// them give up.
class AbortWord {
 public:
  /// @throws DeviceError
  explicit AbortWord(int device);
  ~AbortWord();
  AbortWord(const AbortWord&) = delete;
  AbortWord& operator=(const AbortWord&) = delete;

  volatile uint32_t* word() const { return static_cast<volatile uint32_t*>(word_); }

 private:
  int device_;
  void* word_ = nullptr;
};

/// Whether one GPU's kernels can reach another's memory; CUDA indices. @throws DeviceError
bool can_reach(int device, int other);

/// Lets kernels and copies of `device` reach the other's memory. Makes `device` the calling
/// thread's. @throws DeviceError
void enable_access(int device, int other);

}  // namespace tandem
