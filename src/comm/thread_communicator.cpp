#include "comm/thread_communicator.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>

#include "tandem/error.h"

namespace tandem {
namespace {

constexpr int kSpins = 2000;  ///< yields before a waiting rank sleeps

enum class Operation : uint8_t { kAllReduceSum, kAllGather, kBroadcast };

/// What a rank brings to a collective.
struct Offer {
  Operation operation = Operation::kBroadcast;
  int root = 0;
  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int64_t count = 0;

  bool matches(const Offer& other) const {
    return operation == other.operation && root == other.root && dtype == other.dtype &&
           count == other.count;
  }
};

/// A message on its way from one rank to another; empty when `data` is null.
struct Mailbox {
  std::atomic<const std::byte*> data{nullptr};
  size_t bytes = 0;
};

/// What the ranks share.
class Group {
 public:
  explicit Group(int size)
      : size_(size),
        offers_(static_cast<size_t>(size)),
        mailboxes_(static_cast<size_t>(size) * static_cast<size_t>(size)),
        waiting_(static_cast<size_t>(size)) {}

  int size() const { return size_; }
  bool waiting(int rank) const { return waiting_[static_cast<size_t>(rank)]; }
  Offer& offer(int rank) { return offers_[static_cast<size_t>(rank)]; }
  Mailbox& mailbox(int from, int to) {
    return mailboxes_[static_cast<size_t>(from) * static_cast<size_t>(size_) +
                      static_cast<size_t>(to)];
  }

  /// Returns once every rank has arrived.
  void barrier(int rank) {
    const uint64_t generation = generation_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      change([&] { generation_.store(generation + 1, std::memory_order_release); });
      return;
    }
    wait(rank, [&] { return generation_.load(std::memory_order_acquire) != generation; });
  }

  /// Returns once `ready()`; throws when the group is aborted first.
  template <typename Ready>
  void wait(int rank, Ready ready) {
    std::atomic<bool>& waiting = waiting_[static_cast<size_t>(rank)];
    waiting = true;
    const auto no_longer = [](std::atomic<bool>* flag) { *flag = false; };
    const std::unique_ptr<std::atomic<bool>, decltype(no_longer)> scope(&waiting, no_longer);
    for (int spin = 0; spin < kSpins; ++spin) {
      if (ready()) return;
      if (aborted_.load(std::memory_order_acquire)) break;
      std::this_thread::yield();
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready() || aborted_.load(std::memory_order_acquire); });
    if (!ready()) throw DeviceError(reason_);
  }

  /// Makes a change that somebody may be waiting for.
  template <typename Change>
  void change(Change apply) {
    {
      // Under the lock, or a rank between its last look and its sleep would miss it.
      const std::lock_guard lock(mutex_);
      apply();
    }
    changed_.notify_all();
  }

  void abort(const std::string& reason) {
    change([&] {
      if (!aborted_.load(std::memory_order_relaxed))
        reason_ = "communication was aborted: " + reason;
      aborted_.store(true, std::memory_order_release);
    });
  }

  std::string failure() {
    if (!aborted_.load(std::memory_order_acquire)) return {};
    const std::lock_guard lock(mutex_);
    return reason_;
  }

  void check_alive() {
    if (!aborted_.load(std::memory_order_acquire)) return;
    const std::lock_guard lock(mutex_);
    throw DeviceError(reason_);
  }

 private:
  const int size_;
  std::vector<Offer> offers_;
  std::vector<Mailbox> mailboxes_;
  std::vector<std::atomic<bool>> waiting_;  ///< by rank
  std::atomic<int> arrived_{0};
  std::atomic<uint64_t> generation_{0};
  std::atomic<bool> aborted_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string reason_;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Group> group, int rank)
      : group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  void all_reduce_sum(TensorView values, Stream&) override {
    if (values.dtype() != DType::kF32)
      throw ShapeError("all_reduce_sum: only float32 can be summed");
    meet({Operation::kAllReduceSum, 0, values.as<std::byte>(), values.dtype(), values.count()});
    // Each rank sums one share of the elements for all: nobody reads what another one writes.
    const int64_t share = (values.count() + size() - 1) / size();
    const int64_t begin = std::min(rank_ * share, values.count());
    const int64_t end = std::min(begin + share, values.count());
    for (int64_t i = begin; i < end; ++i) {
      float sum = floats(0)[i];
      for (int rank = 1; rank < size(); ++rank) sum += floats(rank)[i];
      for (int rank = 0; rank < size(); ++rank) floats(rank)[i] = sum;
    }
    group_->barrier(rank_);
  }

  void all_gather(TensorView values, TensorView gathered, Stream&) override {
    if (gathered.count() != values.count() * size() || gathered.dtype() != values.dtype()) {
      throw ShapeError("all_gather: " + gathered.shape().to_string() + " does not hold " +
                       std::to_string(size()) + " times " + values.shape().to_string());
    }
    meet({Operation::kAllGather, 0, values.as<std::byte>(), values.dtype(), values.count()});
    for (int rank = 0; rank < size(); ++rank) {
      const size_t bytes = values.bytes();
      std::byte* const place = gathered.as<std::byte>() + static_cast<size_t>(rank) * bytes;
      const std::byte* const offered = group_->offer(rank).data;
      if (place != offered) std::memcpy(place, offered, bytes);
    }
    group_->barrier(rank_);
  }

  void broadcast(TensorView values, int root, Stream&) override {
    check_rank(root);
    meet({Operation::kBroadcast, root, values.as<std::byte>(), values.dtype(), values.count()});
    if (rank_ != root) std::memcpy(values.data(), group_->offer(root).data, values.bytes());
    group_->barrier(rank_);
  }

  void send(TensorView values, int to, Stream&) override {
    check_other(to);
    group_->check_alive();
    Mailbox& mailbox = group_->mailbox(rank_, to);
    group_->change([&] {
      mailbox.bytes = values.bytes();
      mailbox.data.store(values.as<std::byte>(), std::memory_order_release);
    });
    group_->wait(rank_, [&] { return mailbox.data.load(std::memory_order_acquire) == nullptr; });
  }

  void recv(TensorView values, int from, Stream&) override {
    check_other(from);
    group_->check_alive();
    Mailbox& mailbox = group_->mailbox(from, rank_);
    group_->wait(rank_, [&] { return mailbox.data.load(std::memory_order_acquire) != nullptr; });
    if (mailbox.bytes != values.bytes()) {
      throw ShapeError("recv: rank " + std::to_string(from) + " sent " +
                       std::to_string(mailbox.bytes) + " bytes, rank " + std::to_string(rank_) +
                       " expects " + std::to_string(values.bytes()));
    }
    std::memcpy(values.data(), mailbox.data.load(std::memory_order_acquire), values.bytes());
    group_->change([&] { mailbox.data.store(nullptr, std::memory_order_release); });
  }

  void abort(const std::string& reason) override { group_->abort(reason); }
  std::string failure() const override { return group_->failure(); }
  bool waiting() const override { return group_->waiting(rank_); }

 private:
  /// Shows the others what this rank brings and waits for theirs.
  void meet(const Offer& offer) {
    group_->check_alive();
    group_->offer(rank_) = offer;
    group_->barrier(rank_);
    for (int rank = 0; rank < size(); ++rank) {
      if (!group_->offer(rank).matches(offer)) {
        throw ShapeError("communication: rank " + std::to_string(rank) + " and rank " +
                         std::to_string(rank_) +
                         " called different operations, or with different sizes");
      }
    }
  }

  float* floats(int rank) { return reinterpret_cast<float*>(group_->offer(rank).data); }

  std::shared_ptr<Group> group_;
  const int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int size) {
  if (size < 1) throw ShapeError("communication: a group needs at least one rank");
  const auto group = std::make_shared<Group>(size);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < size; ++rank)
    ranks.push_back(std::make_unique<ThreadCommunicator>(group, rank));
  return ranks;
}

}  // namespace tandem
