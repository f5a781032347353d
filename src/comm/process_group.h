#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "comm/rendezvous.h"
#include "tandem/processes.h"

namespace tandem {

/// The processes that run one engine together, rank 0 in the middle. What they settle before they
/// compute, and what rank 0 tells the others to compute, goes over TCP; what they compute goes
/// through a Communicator.
///
/// A thread of the group exchanges signs of life: a process that dies is noticed at once, one that
/// is silent for `kSilenceLimit` counts as stalled. Then, or when a process calls `abort`, the
/// group has failed for good, in every process with the same reason, and everything that waits here
/// throws it. The collectives are for one thread at a time, in the same order in all processes;
/// `abort`, `failure` and `check` for any.
class ProcessGroup {
 public:
  static constexpr std::chrono::milliseconds kSilenceLimit{6'000};

  explicit ProcessGroup(const ProcessPlace& place);
  /// Tells the others that this process leaves in good order, or why not.
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  int rank() const { return place_.rank; }
  int size() const { return place_.world_size; }
  const ProcessInfo& process(int rank) const;
  /// Of the processes of this host: how many there are, and which of them this is.
  int processes_here() const;
  int index_here() const;
  /// The launcher's, or else `index_here`.
  int local_rank() const { return place_.local_rank.value_or(index_here()); }

  /// All ranks say what they drive ("cuda:1"); from then on messages say so.
  void describe_devices(std::string_view own);
  /// "rank 1 (cuda:1)", with the host where there are several.
  std::string name_of(int rank) const;
  std::string own_name() const { return name_of(rank()); }

  /// What every rank brought, by rank.
  std::vector<std::string> all_gather(std::string_view own);
  /// What rank 0 brought.
  std::string broadcast(std::string_view roots);
  void barrier() { (void)all_gather({}); }

  /// Rank 0's word to all others.
  void tell(std::string_view message);
  /// The next one. Waits for as long as rank 0 lives.
  std::string hear();

  /// How much of what it was told a rank has done, as far as this one has heard.
  void note_progress(uint64_t done) { progress_[static_cast<size_t>(rank())] = done; }
  uint64_t progress(int rank) const { return progress_[static_cast<size_t>(rank)]; }

  /// Ends the group for the reason; the first one counts.
  void abort(const std::string& reason);
  std::string failure() const;
  /// @throws DeviceError with the failure, if there is one
  void check() const;
  /// The failure that a broken connection comes from: a process that ends breaks all of its
  /// connections, and which of them says so first is chance.
  std::string reason_for_loss() const;

 private:
  struct Peer {
    int rank = 0;
    std::chrono::steady_clock::time_point heard;
    bool left = false;
  };

  void watch();
  void beat();
  void listen_to(Peer& peer);
  void pass_on_failure() noexcept;
  void send_on_liveness(int rank, uint32_t kind, std::string_view payload) noexcept;
  const Socket& messages_with(int rank) const { return links_.messages[static_cast<size_t>(rank)]; }
  template <typename Operation>
  auto guarded(const Operation& operation) const;

  const ProcessPlace place_;
  ProcessLinks links_;
  std::vector<std::string> devices_;  ///< by rank; behind the mutex
  std::vector<std::atomic<uint64_t>> progress_;
  mutable std::mutex mutex_;
  std::string failure_;
  std::atomic<bool> failed_{false};
  std::atomic<bool> stopping_{false};
  bool passed_on_ = false;   ///< the watch's
  std::vector<Peer> peers_;  ///< those that this process hears from; the watch's
  std::thread watch_;
};

}  // namespace tandem
