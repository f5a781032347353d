#include "backend/cpu/thread_pool.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <string>
#include <system_error>

#include "tandem/error.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;

// Ops of a pass follow each other within a microsecond, passes within the time the host takes to
// look at their results. There is no yielding in between: on a busy machine it gives the core away
// for milliseconds, while a sleeper is woken in tens of microseconds.
constexpr std::chrono::microseconds kSpinTime{1000};
// Pauses between two looks at the clock: a pause takes some 10 ns, a look at the clock 20.
constexpr int kPausesPerLook = 64;

void pause_core() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// std::atomic's own wait yields before it sleeps, so the system is asked directly.
void sleep_while_equal(std::atomic<uint32_t>& word, uint32_t value) {
  static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
void wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

cpu_set_t allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  return set;
}

}  // namespace

int available_cores() {
  const cpu_set_t set = allowed_cores();
  const int count = CPU_COUNT(&set);
  return count > 0 ? count : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void ThreadPool::Signal::raise(uint32_t value) {
  // Sequentially consistent against a waiter that counts itself a sleeper and then looks at the
  // word once more: either it sees the new value or this thread sees the sleeper.
  word_.store(value);
  if (sleepers_.load() > 0) wake_all(word_);
}

void ThreadPool::Signal::await_change(uint32_t old, bool spin) {
  const auto changed = [&] { return word_.load(std::memory_order_acquire) != old; };
  if (spin) {
    Clock::time_point start{};
    do {
      for (int i = 0; i < kPausesPerLook; ++i) {
        if (changed()) return;
        pause_core();
      }
      if (start == Clock::time_point{}) start = Clock::now();
    } while (Clock::now() - start < kSpinTime);
  }
  sleepers_.fetch_add(1);
  while (word_.load() == old) sleep_while_equal(word_, old);
  sleepers_.fetch_sub(1);
}

struct ThreadPool::Worker {
  Signal done;  // the last job that this worker has finished
  std::thread thread;
};

ThreadPool::ThreadPool(int threads) {
  const int cores = available_cores();
  if (threads <= 0) threads = cores;
  spin_ = threads <= cores;
  try {
    for (int index = 1; index < threads; ++index) {
      workers_.push_back(std::make_unique<Worker>());
      Worker& worker = *workers_.back();
      worker.thread = std::thread([this, &worker, index] { work(worker, index); });
    }
  } catch (const std::system_error& error) {
    stop();
    throw DeviceError("cpu: cannot start " + std::to_string(threads) + " threads: " + error.what() +
                      "; ask for fewer (this process may use " + std::to_string(cores) + " cores)");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() noexcept {
  stop_ = true;
  jobs_.raise(++job_number_);
  for (const auto& worker : workers_) {
    if (worker->thread.joinable()) worker->thread.join();
  }
}

void ThreadPool::launch(Job job, void* target) {
  job_ = job;
  target_ = target;
  caller_core_ = sched_getcpu();
  jobs_.raise(++job_number_);
  job(target, 0);
  for (const auto& worker : workers_) worker->done.await_change(job_number_ - 1, spin_);
}

void ThreadPool::work(Worker& self, int index) {
  const cpu_set_t allowed = allowed_cores();
  for (uint32_t seen = 0;; ++seen) {  // jobs come one at a time: the caller waits for every worker
    jobs_.await_change(seen, spin_);
    if (stop_) return;
    if (spin_ && sched_getcpu() == caller_core_) leave_core(caller_core_, allowed);
    job_(target_, index);
    self.done.raise(seen + 1);
  }
}

void ThreadPool::leave_core(int core, cpu_set_t allowed) {
  // The system may put a spinning thread and the one it waits for on one core for a long time: both
  // look busy to it.
  CPU_CLR(static_cast<size_t>(core), &allowed);
  if (CPU_COUNT(&allowed) > 0) sched_setaffinity(0, sizeof(allowed), &allowed);
}

}  // namespace tandem
