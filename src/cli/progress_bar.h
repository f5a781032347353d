#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::cli {

/// How far a load is, for one line of a terminal.
struct LoadState {
  std::string_view model;  ///< "draft", "main"
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;  ///< > 0
  double seconds = 0;        ///< since the model's load began
};

/// "loading main  █████░░░░░  12.0 MiB of 24.0 MiB, 96.0 MiB/s, 1 s left", at most `columns` wide:
/// the bar takes what the text leaves, and where room is short rate and time, then the bar are left
/// out.
std::string progress_line(const LoadState& state, int columns);

/// How far a piece of work made of equal steps is.
struct WorkState {
  std::string_view name;
  int64_t done = 0;
  int64_t total = 0;   ///< > 0
  double seconds = 0;  ///< since the first of the steps that `timed` counts
  int64_t timed = 0;   ///< of `done`, those that took `seconds`
};

/// "demo, K=4 greedy  █████░░░░░  12 of 320, 2 min 5 s left", at most `columns` wide, shortened as
/// `progress_line` is for a load.
std::string work_line(const WorkState& state, int columns);

/// "45 s", "2 min 5 s", "3 h 20 min".
std::string duration_text(double seconds);

/// Shows on stderr how far a piece of work is, on one line that disappears. Silent unless stderr is
/// a terminal, whose width it follows.
class WorkProgress {
 public:
  WorkProgress();
  ~WorkProgress();
  WorkProgress(const WorkProgress&) = delete;
  WorkProgress& operator=(const WorkProgress&) = delete;
  void show(const WorkState& state);

 private:
  bool enabled_;
  bool shown_ = false;
};

/// Shows on stderr how far loading is, on one line that disappears. Silent unless stderr is a
/// terminal, whose width it follows.
class LoadProgress {
 public:
  LoadProgress();
  ~LoadProgress();
  LoadProgress(const LoadProgress&) = delete;
  LoadProgress& operator=(const LoadProgress&) = delete;
  void show(std::string_view model, uint64_t done_bytes, uint64_t total_bytes);

 private:
  using Clock = std::chrono::steady_clock;

  bool enabled_;
  bool shown_ = false;
  std::string model_;
  Clock::time_point begun_;  ///< the load of `model_`
  Clock::time_point drawn_;
};

}  // namespace tandem::cli
