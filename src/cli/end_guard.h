#pragma once

#include <memory>
#include <thread>

#include "tandem/processes.h"

namespace tandem::cli {

/// Ends this process when its group has failed and it does not come to its end by itself: a driver
/// that waits for a device which waits for a process that is gone, or stopped, may never return.
/// Lives longer than the engine, and shorter than the group. Where the group has failed, it watches
/// on behind its destructor, over the end of the program.
class EndGuard {
 public:
  explicit EndGuard(ProcessGroup& processes);
  ~EndGuard();
  EndGuard(const EndGuard&) = delete;
  EndGuard& operator=(const EndGuard&) = delete;

 private:
  struct State;
  std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace tandem::cli
