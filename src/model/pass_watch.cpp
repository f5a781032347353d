#include "model/pass_watch.h"

#include <utility>

#include "tandem/error.h"

namespace tandem {

PassWatch::PassWatch(Options options) : options_(std::move(options)), thread_([this] { run(); }) {}

PassWatch::~PassWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void PassWatch::begin() {
  const std::lock_guard lock(mutex_);
  if (unfinished_.empty()) oldest_since_ = Clock::now();
  unfinished_.push_back(nullptr);
}

void PassWatch::queued(Stream& stream) {
  std::unique_ptr<Event> event;
  {
    const std::lock_guard lock(mutex_);
    if (!spare_.empty()) {
      event = std::move(spare_.back());
      spare_.pop_back();
    }
  }
  if (event == nullptr) event = options_.make_event();
  stream.record(*event);
  const std::lock_guard lock(mutex_);
  unfinished_.back() = std::move(event);
}

std::string PassWatch::look() {
  const std::string failure = options_.failure();
  if (!failure.empty()) return failure;
  const std::lock_guard lock(mutex_);
  while (!unfinished_.empty() && unfinished_.front() != nullptr && unfinished_.front()->done()) {
    spare_.push_back(std::move(unfinished_.front()));
    unfinished_.pop_front();
    oldest_since_ = Clock::now();
  }
  if (unfinished_.empty() || Clock::now() - oldest_since_ < options_.limit) return {};
  return options_.describe_stall();
}

void PassWatch::run() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, options_.interval, [this] { return stopping_; })) {
    lock.unlock();
    std::string reason;
    try {
      reason = look();
    } catch (const std::exception& error) {
      reason = error.what();  // the device itself is lost
    }
    if (!reason.empty()) return options_.on_failure(reason);
    lock.lock();
  }
}

}  // namespace tandem
