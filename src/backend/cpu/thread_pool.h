#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace tandem {

/// Cores this process may run on (its affinity mask); at least 1.
int available_cores();

/// The half-open piece [begin, end) that worker `index` of `workers` takes of `count` items:
/// contiguous, even, and the same every time, so that a worker meets the same weights in its own
/// cache again.
struct WorkRange {
  int64_t begin = 0;
  int64_t end = 0;
};
constexpr WorkRange split_range(int64_t count, int index, int workers) {
  return {count * index / workers, count * (index + 1) / workers};
}

/// Fork-join threads for the ops of one CPU device. The caller is worker 0 and takes part. Between
/// jobs workers spin for about a millisecond before they sleep, because a forward pass has a
/// hundred jobs of a few microseconds each and waking a sleeping thread costs as much as a whole
/// job. Threads: `run` is for one thread at a time; several pools may live in a process.
class ThreadPool {
 public:
  /// @param threads workers in all, the caller included; 0 means `available_cores()`
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls fn(worker) once on every worker, worker = 0 … size() - 1, and returns when all have
  /// returned. What the caller wrote before is visible to the workers, and what they wrote to the
  /// caller afterwards. `fn` must not throw and must not call `run` of the same pool.
  template <typename Function>
  void run(Function&& fn) {
    if (workers_.empty()) {
      fn(0);
      return;
    }
    using Target = std::remove_reference_t<Function>;
    launch([](void* target, int worker) { (*static_cast<Target*>(target))(worker); },
           const_cast<void*>(static_cast<const void*>(std::addressof(fn))));
  }

  /// Calls fn(item) for every item in [0, count), each worker taking one contiguous piece; on the
  /// caller alone when `parallel` is false. Pass a value that depends on shapes only.
  template <typename Function>
  void for_each(int64_t count, bool parallel, Function&& fn) {
    if (!parallel || count < 2) {
      for (int64_t item = 0; item < count; ++item) fn(item);
      return;
    }
    run([&](int worker) {
      const WorkRange range = split_range(count, worker, size());
      for (int64_t item = range.begin; item < range.end; ++item) fn(item);
    });
  }

 private:
  using Job = void (*)(void* target, int worker);
  struct Worker;

  /// A number that one side raises and others wait for.
  class alignas(64) Signal {
   public:
    void raise(uint32_t value);
    /// Returns when the number is no longer `old`; what its raiser wrote before is visible then.
    /// Spins for a while, if asked to, then sleeps.
    void await_change(uint32_t old, bool spin);

   private:
    std::atomic<uint32_t> word_{0};
    std::atomic<int> sleepers_{0};
  };

  void launch(Job job, void* target);
  void work(Worker& self, int index);
  void stop() noexcept;
  static void leave_core(int core, cpu_set_t allowed);

  Signal jobs_;
  // The job at hand; the caller writes it before it raises `jobs_` and after all workers are done
  // with the last one.
  Job job_ = nullptr;
  void* target_ = nullptr;
  int caller_core_ = -1;
  bool stop_ = false;
  uint32_t job_number_ = 0;  // the caller's own
  bool spin_ =
      true;  // more threads than cores never spin: they would wait for each other's time slices
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace tandem
