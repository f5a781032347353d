#pragma once

#include <functional>
#include <thread>

namespace tandem::cli {

/// While this lives, the first SIGINT (Ctrl-C) calls `on_interrupt` once, on a thread of its own;
/// the second one ends the process as usual. One at a time.
class InterruptWatch {
 public:
  explicit InterruptWatch(std::function<void()> on_interrupt);
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

 private:
  int pipe_[2] = {-1, -1};  ///< read end, write end: what a signal handler may write to
  std::thread watcher_;
};

}  // namespace tandem::cli
