#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace tandem {

/// The thread that drives one device: runs the tasks it is given, one at a time. `post` and `wait`
/// are for one thread. Rounds follow each other closely, so an idle worker spins for a while before
/// it sleeps.
class DeviceWorker {
 public:
  DeviceWorker();
  /// Finishes the task at hand.
  ~DeviceWorker();
  DeviceWorker(const DeviceWorker&) = delete;
  DeviceWorker& operator=(const DeviceWorker&) = delete;

  /// Starts a task that must not throw; the last one must have been waited for.
  void post(std::function<void()> task);
  /// Returns when the task is done.
  void wait();
  /// The same, but returns false when it is not within this time.
  bool wait_for(std::chrono::milliseconds time);
  bool busy() const { return state_.load(std::memory_order_acquire) == State::kBusy; }

 private:
  enum class State { kIdle, kBusy, kStopping };

  void run();
  void set_state(State state);
  /// Spins, then sleeps, until the state is another than `state`; returns it.
  State leave(State state);

  std::atomic<State> state_{State::kIdle};
  std::function<void()> task_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread thread_;
};

}  // namespace tandem
