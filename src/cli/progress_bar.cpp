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

std::string bar(double share, int columns) {
  const int filled = static_cast<int>(share * columns);
  std::string text;
  for (int column = 0; column < columns; ++column) text += column < filled ? "█" : "░";
  return text;
}

/// name, bar and the longer of two texts that leaves room for a bar. All ASCII.
std::string line_of(const std::string& name, double share, const std::string& full,
                    const std::string& brief, int columns) {
  const auto room_beside = [&](const std::string& text) {
    return columns - static_cast<int>(name.size() + text.size() + 2 * kGap.size());
  };
  const std::string& amount = room_beside(full) >= kShortestBar ? full : brief;
  const int room = room_beside(amount);
  std::string line = name;
  line += kGap;
  if (room < kShortestBar)
    return (line + amount).substr(0, static_cast<size_t>(std::max(columns, 0)));
  line += bar(share, std::min(room, kLongestBar));
  line += kGap;
  return line + amount;
}

}  // namespace

std::string progress_line(const LoadState& given, int columns) {
  LoadState state = given;
  state.done_bytes = std::min(state.done_bytes, state.total_bytes);
  const std::string amount =
      format_size(state.done_bytes) + " of " + format_size(state.total_bytes);
  return line_of("loading " + std::string(state.model),
                 static_cast<double>(state.done_bytes) / static_cast<double>(state.total_bytes),
                 amount + rate_and_time(state), amount, columns);
}

std::string duration_text(double seconds) {
  constexpr int64_t kMinute = 60, kHour = 60 * kMinute;
  const auto whole = static_cast<int64_t>(std::ceil(std::max(seconds, 0.0)));
  if (whole < kMinute) return std::to_string(whole) + " s";
  if (whole < kHour) {
    return std::to_string(whole / kMinute) + " min " + std::to_string(whole % kMinute) + " s";
  }
  return std::to_string(whole / kHour) + " h " + std::to_string(whole % kHour / kMinute) + " min";
}

std::string work_line(const WorkState& state, int columns) {
  const std::string amount = std::to_string(state.done) + " of " + std::to_string(state.total);
  std::string full = amount;
  if (state.timed > 0 && state.seconds >= kSettledSeconds) {
    const double each = state.seconds / static_cast<double>(state.timed);
    full += ", " + duration_text(each * static_cast<double>(state.total - state.done)) + " left";
  }
  return line_of(std::string(state.name),
                 static_cast<double>(state.done) / static_cast<double>(state.total), full, amount,
                 columns);
}

WorkProgress::WorkProgress() : enabled_(stderr_is_terminal()) {}

WorkProgress::~WorkProgress() {
  if (shown_) std::fputs(kClearLine, stderr);
}

void WorkProgress::show(const WorkState& state) {
  if (!enabled_ || state.total == 0) return;
  shown_ = true;
  std::fputs((kClearLine + work_line(state, stderr_columns() - 1)).c_str(), stderr);
  std::fflush(stderr);
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
