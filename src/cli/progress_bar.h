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
