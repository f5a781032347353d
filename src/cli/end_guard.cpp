#include "cli/end_guard.h"

#include <chrono>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>

#include "cli/console.h"
#include "comm/process_group.h"
#include "tandem/error.h"

namespace tandem::cli {
namespace {

constexpr std::chrono::milliseconds kLookEvery{100};
/// What a process has to say and to give back is done in less.
constexpr std::chrono::seconds kEndLimit{4};

}  // namespace

struct EndGuard::State {
  std::mutex mutex;
  ProcessGroup* processes = nullptr;  ///< null once the guard is gone
  bool over = false;                  ///< in good order

  void watch() {
    using Clock = std::chrono::steady_clock;
    std::optional<Clock::time_point> deadline;
    std::string failure;
    while (true) {
      std::this_thread::sleep_for(kLookEvery);
      const std::lock_guard lock(mutex);
      if (over) return;
      if (processes != nullptr) failure = processes->failure();
      if (failure.empty() && processes != nullptr) continue;
      if (!deadline) deadline = Clock::now() + kEndLimit;
      if (Clock::now() < *deadline) continue;
      if (processes != nullptr) print_error(failure);  // else whoever caught the error prints it
      std::_Exit(static_cast<int>(ExitCode::kRuntime));
    }
  }
};

EndGuard::EndGuard(ProcessGroup& processes) : state_(std::make_shared<State>()) {
  state_->processes = &processes;
  thread_ = std::thread([state = state_] { state->watch(); });
}

EndGuard::~EndGuard() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->over = state_->processes->failure().empty();
    state_->processes = nullptr;
  }
  if (state_->over) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

}  // namespace tandem::cli
