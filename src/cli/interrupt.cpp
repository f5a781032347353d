#include "cli/interrupt.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

namespace tandem::cli {
namespace {

constexpr char kInterrupted = 'i';
constexpr char kFinished = 'f';

/// Where the signal handler writes: all that a handler can reach is a global.
std::atomic<int> handler_pipe = -1;
static_assert(std::atomic<int>::is_always_lock_free);

void handle_interrupt(int) {
  const int saved_errno = errno;
  [[maybe_unused]] const ssize_t written = write(handler_pipe.load(), &kInterrupted, 1);
  errno = saved_errno;
}

}  // namespace

InterruptWatch::InterruptWatch(std::function<void()> on_interrupt) {
  if (pipe2(pipe_, O_CLOEXEC) != 0) {
    throw std::system_error(errno, std::generic_category(), "cannot make a pipe");
  }
  handler_pipe = pipe_[1];
  watcher_ = std::thread([read_end = pipe_[0], call = std::move(on_interrupt)] {
    char what = 0;
    ssize_t got = 0;
    while ((got = read(read_end, &what, 1)) < 0 && errno == EINTR) {
    }
    if (got == 1 && what == kInterrupted) call();
  });
  struct sigaction action = {};
  action.sa_handler = handle_interrupt;
  action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
}

InterruptWatch::~InterruptWatch() {
  signal(SIGINT, SIG_DFL);
  [[maybe_unused]] const ssize_t written = write(pipe_[1], &kFinished, 1);
  watcher_.join();
  handler_pipe = -1;
  close(pipe_[0]);
  close(pipe_[1]);
}

}  // namespace tandem::cli
