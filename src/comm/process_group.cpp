#include "comm/process_group.h"

#include <poll.h>

#include <algorithm>
#include <cstring>

#include "core/log.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kBeatInterval{500};
/// How long a message of the watch may be on its way.
constexpr std::chrono::seconds kWatchPatience{2};
/// How long the loss of a connection may precede the news of what caused it.
constexpr std::chrono::seconds kNewsPatience{2};

enum Kind : uint32_t { kData = 1, kTold, kBeat, kAbort, kGoodbye };

/// Texts, each with its length in front.
std::string pack(const std::vector<std::string>& texts) {
  std::string packed;
  for (const std::string& text : texts) {
    const uint64_t bytes = text.size();
    packed.append(reinterpret_cast<const char*>(&bytes), sizeof(bytes));
    packed += text;
  }
  return packed;
}

std::vector<std::string> unpack(std::string_view packed, size_t count) {
  std::vector<std::string> texts;
  while (texts.size() < count) {
    uint64_t bytes = 0;
    if (packed.size() < sizeof(bytes)) throw ConnectionLost("a message of rank 0's is too short");
    std::memcpy(&bytes, packed.data(), sizeof(bytes));
    packed.remove_prefix(sizeof(bytes));
    if (packed.size() < bytes) throw ConnectionLost("a message of rank 0's is too short");
    texts.emplace_back(packed.substr(0, bytes));
    packed.remove_prefix(bytes);
  }
  return texts;
}

GiveUp for_a_while() {
  return [deadline = Clock::now() + kWatchPatience] {
    if (Clock::now() > deadline) throw ConnectionLost("no answer");
  };
}

}  // namespace

ProcessGroup::ProcessGroup(const ProcessPlace& place)
    : place_(place),
      links_(meet_processes(place)),
      devices_(static_cast<size_t>(place.world_size)),
      progress_(static_cast<size_t>(place.world_size)) {
  for (int other = 0; other < size(); ++other) {
    if (links_.liveness[static_cast<size_t>(other)].is_open()) {
      peers_.push_back({other, Clock::now(), false});
    }
  }
  watch_ = std::thread([this] { watch(); });
}

ProcessGroup::~ProcessGroup() {
  stopping_ = true;
  watch_.join();
}

const ProcessInfo& ProcessGroup::process(int rank) const {
  return links_.processes.at(static_cast<size_t>(rank));
}

int ProcessGroup::processes_here() const {
  return static_cast<int>(
      std::count_if(links_.processes.begin(), links_.processes.end(),
                    [&](const ProcessInfo& p) { return p.machine == process(rank()).machine; }));
}

int ProcessGroup::index_here() const {
  return static_cast<int>(
      std::count_if(links_.processes.begin(), links_.processes.begin() + rank(),
                    [&](const ProcessInfo& p) { return p.machine == process(rank()).machine; }));
}

void ProcessGroup::describe_devices(std::string_view own) {
  std::vector<std::string> all = all_gather(own);
  const std::lock_guard lock(mutex_);
  devices_ = std::move(all);
}

std::string ProcessGroup::name_of(int rank) const {
  std::string where;
  {
    const std::lock_guard lock(mutex_);
    where = devices_[static_cast<size_t>(rank)];
  }
  if (where.empty() || processes_here() < size()) {
    where += (where.empty() ? "" : " on ") + process(rank).host;
  }
  return "rank " + std::to_string(rank) + " (" + where + ")";
}

template <typename Operation>
auto ProcessGroup::guarded(const Operation& operation) const {
  try {
    check();
    return operation([this] { check(); });
  } catch (const ConnectionLost& lost) {
    const std::string reason = reason_for_loss();
    throw DeviceError(reason.empty() ? lost.what() : reason);
  }
}

std::vector<std::string> ProcessGroup::all_gather(std::string_view own) {
  return guarded([&](const GiveUp& give_up) {
    if (rank() != 0) {
      send_frame(messages_with(0), kData, own, give_up);
      return unpack(receive_frame(messages_with(0), give_up).payload, static_cast<size_t>(size()));
    }
    std::vector<std::string> all = {std::string(own)};
    for (int from = 1; from < size(); ++from) {
      all.push_back(receive_frame(messages_with(from), give_up).payload);
    }
    const std::string packed = pack(all);
    for (int to = 1; to < size(); ++to) send_frame(messages_with(to), kData, packed, give_up);
    return all;
  });
}

std::string ProcessGroup::broadcast(std::string_view roots) {
  return guarded([&](const GiveUp& give_up) {
    if (rank() != 0) return receive_frame(messages_with(0), give_up).payload;
    for (int to = 1; to < size(); ++to) send_frame(messages_with(to), kData, roots, give_up);
    return std::string(roots);
  });
}

void ProcessGroup::tell(std::string_view message) {
  guarded([&](const GiveUp& give_up) {
    for (int to = 1; to < size(); ++to) send_frame(messages_with(to), kTold, message, give_up);
  });
}

std::string ProcessGroup::hear() {
  return guarded([&](const GiveUp& give_up) {
    Frame frame = receive_frame(messages_with(0), give_up);
    if (frame.kind != kTold) throw ConnectionLost("rank 0 and this process lost step");
    return std::move(frame.payload);
  });
}

void ProcessGroup::abort(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (failed_) return;
  failure_ = reason;
  failed_ = true;
}

std::string ProcessGroup::failure() const {
  if (!failed_) return {};
  const std::lock_guard lock(mutex_);
  return failure_;
}

void ProcessGroup::check() const {
  if (failed_) throw DeviceError(failure());
}

std::string ProcessGroup::reason_for_loss() const {
  const auto deadline = Clock::now() + kNewsPatience;
  while (!failed_ && Clock::now() < deadline) std::this_thread::sleep_for(kLookInterval);
  return failure();
}

// The watch
// ----------------------------------------------------------------------------------------

void ProcessGroup::watch() {
  auto next_beat = Clock::now();
  while (!stopping_ && !passed_on_) {
    if (Clock::now() >= next_beat) {
      beat();
      next_beat = Clock::now() + kBeatInterval;
    }
    std::vector<pollfd> waiting;
    for (const Peer& peer : peers_) {
      const Socket& socket = links_.liveness[static_cast<size_t>(peer.rank)];
      waiting.push_back({peer.left ? -1 : socket.descriptor(), POLLIN, 0});
    }
    (void)poll(waiting.data(), waiting.size(), static_cast<int>(kLookInterval.count()));
    const auto now = Clock::now();
    for (size_t i = 0; i < peers_.size(); ++i) {
      Peer& peer = peers_[i];
      if (peer.left) continue;
      if (waiting[i].revents != 0) {
        listen_to(peer);
      } else if (now - peer.heard > kSilenceLimit) {
        abort(name_of(peer.rank) + " has been silent for " +
              std::to_string(
                  std::chrono::duration_cast<std::chrono::seconds>(kSilenceLimit).count()) +
              " s: the process is stopped, or its host cannot be reached");
      }
    }
    if (failed_) pass_on_failure();
  }
  if (failed_ && !passed_on_) pass_on_failure();
  if (!failed_) {
    for (const Peer& peer : peers_) {
      if (!peer.left) send_on_liveness(peer.rank, kGoodbye, {});
    }
  }
}

void ProcessGroup::beat() {
  const uint64_t done = progress(rank());
  for (const Peer& peer : peers_) {
    if (peer.left) continue;
    send_on_liveness(peer.rank, kBeat, {reinterpret_cast<const char*>(&done), sizeof(done)});
  }
}

void ProcessGroup::listen_to(Peer& peer) {
  try {
    const Frame frame =
        receive_frame(links_.liveness[static_cast<size_t>(peer.rank)], for_a_while());
    peer.heard = Clock::now();
    if (frame.kind == kAbort) abort(frame.payload);
    if (frame.kind == kGoodbye) peer.left = true;
    if (frame.kind == kBeat && frame.payload.size() == sizeof(uint64_t)) {
      uint64_t done = 0;
      std::memcpy(&done, frame.payload.data(), sizeof(done));
      progress_[static_cast<size_t>(peer.rank)] = done;
    }
  } catch (const ConnectionLost&) {
    peer.left = true;
    abort(name_of(peer.rank) + " ended unexpectedly: its process was killed or crashed");
  }
}

void ProcessGroup::pass_on_failure() noexcept {
  passed_on_ = true;
  const std::string reason = failure();
  for (const Peer& peer : peers_) {
    if (!peer.left) send_on_liveness(peer.rank, kAbort, reason);
  }
}

void ProcessGroup::send_on_liveness(int rank, uint32_t kind, std::string_view payload) noexcept {
  try {
    send_frame(links_.liveness[static_cast<size_t>(rank)], kind, payload, for_a_while());
  } catch (const std::exception&) {
    // Whether the other one is gone shows when it is listened to.
  }
}

std::shared_ptr<ProcessGroup> join_processes(const ProcessPlace& place) {
  if (place.world_size == 1) return nullptr;
  return std::make_shared<ProcessGroup>(place);
}

int rank_of(const ProcessGroup& processes) { return processes.rank(); }

void abort_processes(ProcessGroup& processes, const std::string& reason) {
  if (!processes.failure().empty()) return;
  processes.abort(processes.own_name() + ": " + reason);
}

}  // namespace tandem
