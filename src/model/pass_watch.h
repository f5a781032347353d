#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/stream.h"

namespace tandem {

/// Looks, on a thread of its own, whether passes that several ranks run together come to an end: a
/// device that waits for a rank that will never answer tells nobody. One thread begins and queues
/// passes.
class PassWatch {
 public:
  struct Options {
    /// No pass may be the oldest unfinished one for longer.
    std::chrono::milliseconds limit{10'000};
    std::chrono::milliseconds interval{50};  ///< between two looks
    std::function<std::unique_ptr<Event>()> make_event;
    /// What has gone wrong by itself since, or nothing. Called on the watch's thread.
    std::function<std::string()> failure;
    /// What to say about a pass that stalls: which rank is missing.
    std::function<std::string()> describe_stall;
    /// Called once, on the watch's thread, with the reason.
    std::function<void(const std::string&)> on_failure;
  };

  explicit PassWatch(Options options);
  ~PassWatch();
  PassWatch(const PassWatch&) = delete;
  PassWatch& operator=(const PassWatch&) = delete;

  /// A pass is being handed to the ranks.
  void begin();
  /// All of it stands in the leader's stream, whose end decides.
  void queued(Stream& stream);

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  /// Takes finished passes off the list. @return why to give up, or nothing
  std::string look();

  const Options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<Event>> unfinished_;  ///< oldest first; null: not queued yet
  std::vector<std::unique_ptr<Event>> spare_;
  Clock::time_point oldest_since_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tandem
