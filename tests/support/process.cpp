#include "support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <stdexcept>

extern char** environ;

namespace tandem::testing {
namespace {

constexpr size_t kChunk = 4096;

struct Pipe {
  int read_end = -1, write_end = -1;
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("cannot make a pipe");
    read_end = ends[0];
    write_end = ends[1];
  }
};

void close_and_forget(int& descriptor) {
  if (descriptor >= 0) close(descriptor);
  descriptor = -1;
}

}  // namespace

Process::Process(const std::string& program, const std::vector<std::string>& arguments) {
  const Pipe in, out, err;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.read_end, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out.write_end, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.write_end, STDERR_FILENO);
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const int failed = posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(in.read_end);
  close(out.write_end);
  close(err.write_end);
  in_ = in.write_end;
  out_ = out.read_end;
  err_ = err.read_end;
  if (failed != 0) throw std::runtime_error("cannot start " + program);
  ::signal(SIGPIPE, SIG_IGN);  // a program may end without reading what is written to it
}

Process::~Process() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close_and_forget(in_);
  close_and_forget(out_);
  close_and_forget(err_);
}

void Process::write(const std::string& input) {
  for (size_t done = 0; done < input.size();) {
    const ssize_t written = ::write(in_, input.data() + done, input.size() - done);
    if (written <= 0) return;
    done += static_cast<size_t>(written);
  }
}

void Process::close_input() { close_and_forget(in_); }

void Process::signal(int number) { kill(pid_, number); }

std::string Process::read_some() {
  std::array<char, kChunk> chunk;
  const ssize_t got = read(out_, chunk.data(), chunk.size());
  return got > 0 ? std::string(chunk.data(), static_cast<size_t>(got)) : std::string();
}

void Process::read_all(ProcessResult& result) {
  while (out_ >= 0 || err_ >= 0) {
    pollfd waiting[2] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}};
    if (poll(waiting, 2, -1) < 0) continue;
    const auto take = [](const pollfd& from, int& descriptor, std::string& to) {
      if (from.revents == 0) return;
      std::array<char, kChunk> chunk;
      const ssize_t got = read(descriptor, chunk.data(), chunk.size());
      if (got > 0) {
        to.append(chunk.data(), static_cast<size_t>(got));
      } else {
        close_and_forget(descriptor);
      }
    };
    take(waiting[0], out_, result.out);
    take(waiting[1], err_, result.err);
  }
}

ProcessResult Process::wait() {
  close_input();
  ProcessResult result;
  read_all(result);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

ProcessResult run_process(const std::string& program, const std::vector<std::string>& arguments,
                          const std::string& input) {
  Process process(program, arguments);
  process.write(input);
  return process.wait();
}

}  // namespace tandem::testing
