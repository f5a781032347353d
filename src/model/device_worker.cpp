#include "model/device_worker.h"

#include <utility>

namespace tandem {
namespace {

constexpr int kSpins = 2000;  ///< yields before a waiting thread sleeps

}  // namespace

DeviceWorker::DeviceWorker() : thread_([this] { run(); }) {}

DeviceWorker::~DeviceWorker() {
  wait();
  set_state(State::kStopping);
  thread_.join();
}

void DeviceWorker::post(std::function<void()> task) {
  task_ = std::move(task);
  set_state(State::kBusy);
}

void DeviceWorker::wait() { leave(State::kBusy); }

bool DeviceWorker::wait_for(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, time, [&] { return !busy(); });
}

void DeviceWorker::run() {
  while (leave(State::kIdle) == State::kBusy) {
    task_();
    set_state(State::kIdle);
  }
}

void DeviceWorker::set_state(State state) {
  {
    // Under the lock, or a thread between its last look and its sleep would miss it.
    const std::lock_guard lock(mutex_);
    state_.store(state, std::memory_order_release);
  }
  changed_.notify_all();
}

DeviceWorker::State DeviceWorker::leave(State state) {
  for (int spin = 0; spin < kSpins; ++spin) {
    const State now = state_.load(std::memory_order_acquire);
    if (now != state) return now;
    std::this_thread::yield();
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return state_.load(std::memory_order_acquire) != state; });
  return state_.load(std::memory_order_acquire);
}

}  // namespace tandem
