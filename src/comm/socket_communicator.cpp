#include "comm/socket_communicator.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

#include "comm/socket.h"

namespace tandem {
namespace {

enum class Operation : uint32_t { kAllReduceSum, kAllGather, kBroadcast, kSend };

/// Stands in front of a rank's values.
struct Head {
  Operation operation = Operation::kSend;
  int32_t root = 0;
  uint64_t bytes = 0;
  bool operator==(const Head&) const = default;
};

/// What this process's ranks share: whether it was aborted and why.
class Shared {
 public:
  explicit Shared(std::shared_ptr<ProcessGroup> group) : group_(std::move(group)) {}

  void abort(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    if (aborted_) return;
    reason_ = "communication was aborted: " + reason;
    aborted_ = true;
  }
  std::string failure() const {
    const std::string failed = group_->failure();
    if (!failed.empty() || !aborted_) return failed;
    const std::lock_guard lock(mutex_);
    return reason_;
  }
  void check() const {
    const std::string failed = failure();
    if (!failed.empty()) throw DeviceError(failed);
  }
  const ProcessGroup& group() const { return *group_; }

 private:
  const std::shared_ptr<ProcessGroup> group_;
  mutable std::mutex mutex_;
  std::atomic<bool> aborted_{false};
  std::string reason_;
};

/// Bytes on their way to or from another rank.
struct Transfer {
  const Socket* socket = nullptr;
  bool sends = false;
  std::byte* data = nullptr;
  size_t left = 0;

  /// As much as goes without waiting. @throws ConnectionLost
  void move() {
    while (left > 0) {
      const int descriptor = socket->descriptor();
      const ssize_t moved =
          sends ? ::send(descriptor, data, left, MSG_NOSIGNAL) : ::recv(descriptor, data, left, 0);
      if (moved > 0) {
        data += moved;
        left -= static_cast<size_t>(moved);
      } else if (moved == 0) {
        throw ConnectionLost("a rank closed its connection");
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return;
      } else if (errno != EINTR) {
        throw ConnectionLost(std::string("the connection to a rank broke: ") +
                             std::strerror(errno));
      }
    }
  }
};

class SocketCommunicator final : public Communicator {
 public:
  SocketCommunicator(std::shared_ptr<Shared> shared, int rank, std::vector<Socket> peers)
      : shared_(std::move(shared)), rank_(rank), peers_(std::move(peers)) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(peers_.size()); }

  void all_reduce_sum(TensorView values, Stream&) override {
    if (values.dtype() != DType::kF32)
      throw ShapeError("all_reduce_sum: only float32 can be summed");
    const auto count = static_cast<size_t>(values.count());
    gathered_.resize(count * peers_.size());
    gather({Operation::kAllReduceSum, 0, values.bytes()}, values.as<std::byte>(),
           reinterpret_cast<std::byte*>(gathered_.data()));
    float* const sum = values.as<float>();
    for (size_t i = 0; i < count; ++i) {
      sum[i] = gathered_[i];
      for (size_t rank = 1; rank < peers_.size(); ++rank) sum[i] += gathered_[rank * count + i];
    }
  }

  void all_gather(TensorView values, TensorView gathered, Stream&) override {
    if (gathered.bytes() != values.bytes() * peers_.size()) {
      throw ShapeError("all_gather: " + gathered.shape().to_string() + " does not hold " +
                       std::to_string(size()) + " times " + values.shape().to_string());
    }
    gather({Operation::kAllGather, 0, values.bytes()}, values.as<std::byte>(),
           gathered.as<std::byte>());
  }

  void broadcast(TensorView values, int root, Stream&) override {
    check_rank(root);
    const Head head{Operation::kBroadcast, root, values.bytes()};
    std::vector<Part> parts;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank_) continue;
      if (rank_ == root)
        parts.push_back({peer, true, head, values.as<std::byte>(), values.bytes()});
      if (peer == root)
        parts.push_back({peer, false, head, values.as<std::byte>(), values.bytes()});
    }
    exchange(parts);
  }

  void send(TensorView values, int to, Stream&) override {
    check_other(to);
    std::vector<Part> parts = {{to,
                                true,
                                {Operation::kSend, rank_, values.bytes()},
                                values.as<std::byte>(),
                                values.bytes()}};
    exchange(parts);
  }

  void recv(TensorView values, int from, Stream&) override {
    check_other(from);
    std::vector<Part> parts = {{from,
                                false,
                                {Operation::kSend, from, values.bytes()},
                                values.as<std::byte>(),
                                values.bytes()}};
    exchange(parts);
  }

  void abort(const std::string& reason) override { shared_->abort(reason); }
  std::string failure() const override { return shared_->failure(); }
  bool waiting() const override { return waiting_; }

 private:
  /// What goes to or comes from one rank: a head, then values.
  struct Part {
    int peer = 0;
    bool sends = false;
    Head head;  ///< what is sent, or is expected
    std::byte* values = nullptr;
    size_t bytes = 0;
  };

  void gather(const Head& head, std::byte* own, std::byte* all) {
    std::vector<Part> parts;
    for (int peer = 0; peer < size(); ++peer) {
      std::byte* const place = all + static_cast<size_t>(peer) * head.bytes;
      if (peer == rank_) {
        if (place != own) std::memcpy(place, own, head.bytes);
        continue;
      }
      parts.push_back({peer, true, head, own, head.bytes});
      parts.push_back({peer, false, head, place, head.bytes});
    }
    exchange(parts);
  }

  /// All parts at once: ranks that all wrote first would wait for each other.
  void exchange(std::vector<Part>& parts) {
    shared_->check();
    waiting_ = true;
    const auto no_longer = [](std::atomic<bool>* flag) { *flag = false; };
    const std::unique_ptr<std::atomic<bool>, decltype(no_longer)> scope(&waiting_, no_longer);
    try {
      std::vector<Head> heads;
      for (const Part& part : parts) heads.push_back(part.head);
      move_all(parts, [&](size_t i) {
        return std::pair(reinterpret_cast<std::byte*>(&heads[i]), sizeof(Head));
      });
      for (size_t i = 0; i < parts.size(); ++i) {
        if (heads[i] == parts[i].head) continue;
        throw ShapeError("communication: rank " + std::to_string(parts[i].peer) + " and rank " +
                         std::to_string(rank_) +
                         " called different operations, or with different sizes");
      }
      move_all(parts, [&](size_t i) { return std::pair(parts[i].values, parts[i].bytes); });
    } catch (const ConnectionLost& lost) {
      const std::string reason = shared_->group().reason_for_loss();
      throw DeviceError(reason.empty() ? lost.what() : reason);
    }
  }

  template <typename DataOf>
  void move_all(const std::vector<Part>& parts, const DataOf& data_of) {
    std::vector<Transfer> transfers;
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto [data, bytes] = data_of(i);
      transfers.push_back(
          {&peers_[static_cast<size_t>(parts[i].peer)], parts[i].sends, data, bytes});
    }
    std::vector<pollfd> waiting;
    while (true) {
      waiting.clear();
      for (Transfer& transfer : transfers) {
        transfer.move();
        if (transfer.left == 0) continue;
        waiting.push_back({transfer.socket->descriptor(),
                           static_cast<short>(transfer.sends ? POLLOUT : POLLIN), 0});
      }
      if (waiting.empty()) return;
      (void)poll(waiting.data(), waiting.size(), static_cast<int>(kLookInterval.count()));
      shared_->check();
    }
  }

  const std::shared_ptr<Shared> shared_;
  const int rank_;
  const std::vector<Socket> peers_;  ///< by rank; this one's is closed
  std::vector<float> gathered_;
  std::atomic<bool> waiting_{false};
};

/// The port of each rank of this process, "first port port …".
std::string ports_of(int first_rank, const std::vector<Listener>& listeners) {
  std::string text = std::to_string(first_rank);
  for (const Listener& listener : listeners) text += " " + std::to_string(listener.port());
  return text;
}

struct Address {
  std::string host;
  int port = 0;
};

/// Where each rank listens.
std::vector<Address> addresses_of(const ProcessGroup& group, const std::vector<std::string>& said,
                                  int world_size) {
  std::vector<Address> addresses(static_cast<size_t>(world_size));
  for (size_t process = 0; process < said.size(); ++process) {
    std::vector<int> numbers;
    for (size_t from = 0; from < said[process].size();) {
      size_t length = 0;
      numbers.push_back(std::stoi(said[process].substr(from), &length));
      from += length;
    }
    for (size_t i = 1; i < numbers.size(); ++i) {
      const auto rank = static_cast<size_t>(numbers.front()) + i - 1;
      if (rank >= addresses.size()) throw ShapeError("communication: a rank beyond the world");
      addresses[rank] = {group.process(static_cast<int>(process)).address, numbers[i]};
    }
  }
  return addresses;
}

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_socket_communicators(
    std::shared_ptr<ProcessGroup> group, int world_size, int first_rank, int count) {
  const auto own = static_cast<size_t>(count);
  std::vector<Listener> listeners;
  for (size_t i = 0; i < own; ++i) {
    listeners.emplace_back(group->process(group->rank()).address, 0);
  }
  const std::vector<Address> addresses =
      addresses_of(*group, group->all_gather(ports_of(first_rank, listeners)), world_size);
  const GiveUp give_up = [&] { group->check(); };
  // Every rank calls those below it; calls wait in the backlog until they are answered.
  std::vector<std::vector<Socket>> sockets(own);
  for (size_t i = 0; i < own; ++i) {
    const int32_t rank = first_rank + static_cast<int>(i);
    sockets[i].resize(static_cast<size_t>(world_size));
    for (size_t peer = 0; peer < static_cast<size_t>(rank); ++peer) {
      sockets[i][peer] = connect_to(addresses[peer].host, addresses[peer].port, give_up);
      send_all(sockets[i][peer], std::as_bytes(std::span(&rank, 1)), give_up);
    }
  }
  for (size_t i = 0; i < own; ++i) {
    const int rank = first_rank + static_cast<int>(i);
    for (int waiting = world_size - 1 - rank; waiting > 0; --waiting) {
      Socket socket = listeners[i].accept(give_up);
      int32_t peer = 0;
      receive_all(socket, std::as_writable_bytes(std::span(&peer, 1)), give_up);
      if (peer <= rank || peer >= world_size || sockets[i][static_cast<size_t>(peer)].is_open()) {
        throw DeviceError("rank " + std::to_string(rank) + " was called by a stranger");
      }
      sockets[i][static_cast<size_t>(peer)] = std::move(socket);
    }
  }
  const auto shared = std::make_shared<Shared>(std::move(group));
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (size_t i = 0; i < own; ++i) {
    ranks.push_back(std::make_unique<SocketCommunicator>(shared, first_rank + static_cast<int>(i),
                                                         std::move(sockets[i])));
  }
  return ranks;
}

}  // namespace tandem
