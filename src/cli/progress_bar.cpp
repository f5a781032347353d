#include "cli/progress_bar.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cli/console.h"
#include "core/size.h"

namespace tandem::cli {
namespace {

/// Returns to the start of the line and clears it (ECMA-48).
constexpr const char* kClearLine = "\r\033[K";
constexpr int kDefaultColumns = 80;
constexpr int kShortestBar = 8, kLongestBar = 40;
constexpr std::string_view kGap = "  ";
constexpr std::chrono::milliseconds kRedrawAfter{100};
/// A rate over less time than this says nothing.
constexpr double kSettledSeconds = 0.2;

int stderr_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefaultColumns;
  return size.ws_col;
}

std::string rate_and_time(const LoadState& state) {
  if (state.seconds < kSettledSeconds || state.done_bytes == 0) return "";
  const double rate = static_cast<double>(state.done_bytes) / state.seconds;
  const auto left = static_cast<double>(state.total_bytes - state.done_bytes) / rate;
  return ", " + format_size(static_cast<uint64_t>(rate)) + "/s, " +
         std::to_string(static_cast<int64_t>(std::ceil(left))) + " s left";
}

std::string bar(const LoadState& state, int columns) {
  const double share =
      static_cast<double>(state.done_bytes) / static_cast<double>(state.total_bytes);
  const int filled = static_cast<int>(share * columns);
  std::string text;
  for (int column = 0; column < columns; ++column) text += column < filled ? "█" : "░";
  return text;
}

}  // namespace

std::string progress_line(const LoadState& given, int columns) {
  LoadState state = given;
  state.done_bytes = std::min(state.done_bytes, state.total_bytes);
  const std::string name = "loading " + std::string(state.model);
  std::string amount = format_size(state.done_bytes) + " of " + format_size(state.total_bytes);
  const auto room_beside = [&](const std::string& text) {
    return columns - static_cast<int>(name.size() + text.size() + 2 * kGap.size());
  };
  const std::string full = amount + rate_and_time(state);
  if (room_beside(full) >= kShortestBar) amount = full;
  const int room = room_beside(amount);
  std::string line = name;
  line += kGap;
  if (room < kShortestBar)
    return (line + amount).substr(0, static_cast<size_t>(std::max(columns, 0)));
  line += bar(state, std::min(room, kLongestBar));
  line += kGap;
  return line + amount;
}

LoadProgress::LoadProgress() : enabled_(stderr_is_terminal()) {}

LoadProgress::~LoadProgress() {
  if (shown_) std::fputs(kClearLine, stderr);
}

void LoadProgress::show(std::string_view model, uint64_t done_bytes, uint64_t total_bytes) {
  if (!enabled_ || total_bytes == 0) return;
  const Clock::time_point now = Clock::now();
  const bool begins = model != model_;
  if (begins) {
    model_ = model;
    begun_ = now;
  } else if (done_bytes < total_bytes && now - drawn_ < kRedrawAfter) {
    return;
  }
  drawn_ = now;
  shown_ = true;
  const LoadState state{model, done_bytes, total_bytes,
                        std::chrono::duration<double>(now - begun_).count()};
  // A full line would wrap in the last column.
  std::fputs((kClearLine + progress_line(state, stderr_columns() - 1)).c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace tandem::cli
