#include "comm/rendezvous.h"

#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array<char, 8> kMark = {'t', 'a', 'n', 'd', 'e', 'm', 'P', 'G'};
constexpr uint32_t kVersion = 2;
constexpr size_t kNameBytes = 256;
/// A stranger that calls and says nothing holds nobody up for longer.
constexpr std::chrono::seconds kHelloLimit{2};
/// How long rank 0 still answers when it knows that the processes cannot work together.
constexpr std::chrono::seconds kFarewell{1};

enum class Channel : uint32_t { kMessages, kLiveness };
enum Kind : uint32_t { kWelcome = 0x100, kRefused };

/// What a process says first.
struct Hello {
  std::array<char, 8> mark = kMark;
  uint32_t version = kVersion;
  uint32_t world_size = 0;
  uint32_t rank = 0;
  Channel channel = Channel::kMessages;
  std::array<char, kNameBytes> host = {};
  std::array<char, kNameBytes> machine = {};
};
static_assert(sizeof(Hello) == 24 + 2 * kNameBytes);

void put(std::array<char, kNameBytes>& to, const std::string& text) {
  std::strncpy(to.data(), text.c_str(), to.size() - 1);
}

std::string take(std::array<char, kNameBytes> from) {
  from.back() = '\0';
  return from.data();
}

std::string host_name() {
  std::array<char, kNameBytes> name = {};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

/// Another for every start of a kernel; containers of one host share it and differ by name.
std::string machine_id() {
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  return host_name() + " " + boot;
}

std::string at(const ProcessPlace& place) {
  return place.address + ":" + std::to_string(place.port);
}

std::string in_time(const ProcessPlace& place) {
  constexpr int kMillisecondsPerSecond = 1000;
  return " within " + std::to_string(place.patience.count() / kMillisecondsPerSecond) + " s";
}

GiveUp until(Clock::time_point deadline, std::function<std::string()> message) {
  return [deadline, message = std::move(message)] {
    if (Clock::now() >= deadline) throw DeviceError(message());
  };
}

/// One name a line: host, machine, address.
std::string list(const std::vector<ProcessInfo>& processes) {
  std::string text;
  for (const ProcessInfo& process : processes) {
    text += process.host + "\n" + process.machine + "\n" + process.address + "\n";
  }
  return text;
}

std::vector<ProcessInfo> unlist(const std::string& text, size_t count) {
  std::vector<ProcessInfo> processes(count);
  size_t from = 0;
  const auto line = [&] {
    const size_t end = text.find('\n', from);
    if (end == std::string::npos) throw ConnectionLost("rank 0 sent no list of processes");
    std::string one = text.substr(from, end - from);
    from = end + 1;
    return one;
  };
  for (ProcessInfo& process : processes) {
    process.host = line();
    process.machine = line();
    process.address = line();
  }
  return processes;
}

/// Rank 0's side.
class Host {
 public:
  explicit Host(const ProcessPlace& place)
      : place_(place), size_(static_cast<size_t>(place.world_size)) {
    links_.processes.resize(size_);
    links_.messages.resize(size_);
    links_.liveness.resize(size_);
    links_.processes[0] = {host_name(), machine_id(), place.address};
  }

  ProcessLinks gather() {
    Listener listener(place_.address, place_.port);
    const GiveUp give_up =
        until(Clock::now() + place_.patience, [this] { return describe_missing(); });
    while (missing() > 0) {
      const std::string problem = take(listener.accept(give_up));
      if (!problem.empty()) refuse(problem, listener);
    }
    for (const Socket& socket : links_.messages) {
      if (socket.is_open()) send_frame(socket, kWelcome, list(links_.processes), give_up);
    }
    return std::move(links_);
  }

 private:
  size_t missing() const {
    size_t count = 0;
    for (size_t rank = 1; rank < size_; ++rank) {
      count += !links_.messages[rank].is_open() || !links_.liveness[rank].is_open();
    }
    return count;
  }

  std::string describe_missing() const {
    std::string ranks;
    for (size_t rank = 1; rank < size_; ++rank) {
      if (links_.messages[rank].is_open() && links_.liveness[rank].is_open()) continue;
      ranks += (ranks.empty() ? "rank " : ", rank ") + std::to_string(rank);
    }
    return ranks + " never came to " + at(place_) + in_time(place_) + ": " +
           std::to_string(size_ - missing()) + " of " + std::to_string(size_) +
           " processes are there; was every one started, and do they reach this address?";
  }

  /// @return why the processes cannot work together, or nothing
  std::string take(Socket socket) {
    Hello hello;
    try {
      receive_all(socket, std::as_writable_bytes(std::span(&hello, 1)),
                  until(Clock::now() + kHelloLimit, [] { return "no greeting"; }));
    } catch (const DeviceError&) {
      return {};  // whoever called is none of ours
    }
    if (hello.mark != kMark) return {};
    std::string problem = problem_with(hello);
    if (!problem.empty()) {
      send_quietly(socket, problem);
      return problem;
    }
    const size_t rank = hello.rank;
    links_.processes[rank] = {tandem::take(hello.host), tandem::take(hello.machine),
                              socket.peer_address()};
    auto& links = hello.channel == Channel::kMessages ? links_.messages : links_.liveness;
    links[rank] = std::move(socket);
    return {};
  }

  static void send_quietly(const Socket& socket, const std::string& problem) {
    try {
      send_frame(socket, kRefused, problem,
                 until(Clock::now() + kHelloLimit, [] { return "no listener"; }));
    } catch (const DeviceError&) {
      // Whoever is gone needs no answer.
    }
  }

  /// Tells those who came, and those who are about to.
  [[noreturn]] void refuse(const std::string& problem, Listener& listener) const {
    for (const Socket& socket : links_.messages) {
      if (socket.is_open()) send_quietly(socket, problem);
    }
    const GiveUp soon = until(Clock::now() + kFarewell, [] { return "nobody else came"; });
    std::vector<Socket>
        callers;  // open to the end: what is sent to one that is closed may get lost
    try {
      while (true) {
        callers.push_back(listener.accept(soon));
        send_quietly(callers.back(), problem);
      }
    } catch (const DeviceError&) {
      throw UsageError(problem);
    }
  }

  std::string problem_with(const Hello& hello) const {
    const std::string who =
        "rank " + std::to_string(hello.rank) + " (" + tandem::take(hello.host) + ")";
    if (hello.version != kVersion) {
      return who + " runs another version of tandem: it speaks version " +
             std::to_string(hello.version) + " between processes, rank 0 version " +
             std::to_string(kVersion);
    }
    if (hello.world_size != size_) {
      return who + " was started in a world of " + std::to_string(hello.world_size) +
             " processes, rank 0 in one of " + std::to_string(size_);
    }
    if (hello.rank == 0 || hello.rank >= size_) return who + " came to rank 0, which is here";
    const auto& links = hello.channel == Channel::kMessages ? links_.messages : links_.liveness;
    if (links[hello.rank].is_open()) {
      return "two processes say that they are rank " + std::to_string(hello.rank) +
             "; the second one runs on " + tandem::take(hello.host);
    }
    return {};
  }

  const ProcessPlace& place_;
  const size_t size_;
  ProcessLinks links_;
};

Socket call(const ProcessPlace& place, Channel channel, const GiveUp& give_up) {
  Socket socket = connect_to(place.address, place.port, give_up);
  Hello hello;
  hello.world_size = static_cast<uint32_t>(place.world_size);
  hello.rank = static_cast<uint32_t>(place.rank);
  hello.channel = channel;
  put(hello.host, host_name());
  put(hello.machine, machine_id());
  send_all(socket, std::as_bytes(std::span(&hello, 1)), give_up);
  return socket;
}

ProcessLinks join_host(const ProcessPlace& place) {
  const auto deadline = Clock::now() + place.patience;
  const GiveUp unanswered = until(deadline, [&] {
    return "rank 0 does not answer at " + at(place) + in_time(place) +
           ": was it started, and can this host reach that port?";
  });
  const GiveUp incomplete = until(deadline + kHelloLimit, [&] {
    return "rank 0 at " + at(place) + " waits for other ranks, which never came" + in_time(place);
  });
  const auto size = static_cast<size_t>(place.world_size);
  ProcessLinks links;
  links.messages.resize(size);
  links.liveness.resize(size);
  Frame answer;
  try {
    links.messages[0] = call(place, Channel::kMessages, unanswered);
    links.liveness[0] = call(place, Channel::kLiveness, unanswered);
    answer = receive_frame(links.messages[0], incomplete);
  } catch (const ConnectionLost&) {
    throw DeviceError("rank 0 at " + at(place) +
                      " ended, or is no process of tandem's, before all ranks had met");
  }
  if (answer.kind != kWelcome) throw UsageError(answer.payload);
  links.processes = unlist(answer.payload, size);
  return links;
}

}  // namespace

ProcessLinks meet_processes(const ProcessPlace& place) {
  return place.rank == 0 ? Host(place).gather() : join_host(place);
}

}  // namespace tandem
