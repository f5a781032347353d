#pragma once

#include <string>
#include <vector>

namespace tandem::testing {

/// How a program ended and what it wrote.
struct ProcessResult {
  int exit_code = -1;  ///< 128 + n when signal n ended it
  std::string out;
  std::string err;
};

/// Runs a program with these arguments and this text on standard input. @throws std::runtime_error
/// when it cannot start
ProcessResult run_process(const std::string& program, const std::vector<std::string>& arguments,
                          const std::string& input = {});

/// A program that is running.
class Process {
 public:
  Process(const std::string& program, const std::vector<std::string>& arguments);
  ~Process();  ///< kills it if it still runs
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void write(const std::string& input);
  void close_input();
  void signal(int number);
  /// The next bytes on its standard output; empty at the end.
  std::string read_some();
  /// Reads the rest and waits for the end.
  ProcessResult wait();

 private:
  void read_all(ProcessResult& result);

  int pid_ = -1;
  int in_ = -1, out_ = -1, err_ = -1;
};

}  // namespace tandem::testing
