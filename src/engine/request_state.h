#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <vector>

#include "tandem/engine.h"

namespace tandem {

/// A request that was checked, and how it ended. Shared by its handles, the queue and the worker.
struct RequestHandle::State {
  // Fixed before the request is queued.
  Request request;
  std::vector<int32_t> prompt;
  uint64_t seed = 0;
  int num_speculative_tokens = 0;  ///< or Request::kAuto

  std::atomic<bool> cancelled = false;

  void complete(std::vector<Completion> finished) {
    const std::lock_guard lock(mutex_);
    completions_ = std::move(finished);
    end();
  }
  void fail(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    error_ = std::move(error);
    end();
  }
  std::vector<Completion> wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    if (error_) std::rethrow_exception(error_);
    return completions_;
  }
  bool done() const {
    const std::lock_guard lock(mutex_);
    return done_;
  }

 private:
  void end() {
    done_ = true;
    changed_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::vector<Completion> completions_;
  std::exception_ptr error_;
};

}  // namespace tandem
