#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "backend/pass_link.h"
#include "comm/communicator.h"
#include "comm/nccl_communicator.h"
#include "comm/process_group.h"
#include "model/device_worker.h"
#include "model/language_model.h"
#include "model/model_rank.h"
#include "model/pass_watch.h"

namespace tandem {

/// How what decoding sends goes from GPU to GPU: the small sums of a tensor split, the hand-overs
/// of a layer split.
enum class AllReduce : uint8_t {
  kAuto,  ///< whichever is measured to be faster; hand-overs where possible as kPeer
  kNccl,  ///< through the communicator
  kPeer,  ///< through the devices' own memory
};

/// What the ranks of a split do together.
constexpr Traffic traffic_of(Split split) {
  return split == Split::kLayer ? Traffic::kChain : Traffic::kSums;
}

/// A model whose ranks lie on several devices, for a tensor or a layer split. To its caller it
/// looks like a model on the leader's device. The calling thread drives the leader's device, a
/// worker each of the others of this process.
///
/// Ranks of other processes do what the leader's process, rank 0 of the group, is asked for: it
/// tells them by RankCommands, and they call `serve` instead of everything else. Which tokens a
/// pass is over travels through the communicators.
///
/// One thread at a time. When a rank fails in a pass, or a pass does not come to an end in time,
/// the group is aborted, the error that came first is thrown, and every later pass throws
/// DeviceError; MemoryError from `reserve` and `fork` leaves the model usable. On devices that work
/// beside the host a failure may show only after a pass was queued: `check` tells.
class ShardedModel final : public LanguageModel {
 public:
  /// One rank's place. Backends must outlive the model.
  struct Rank {
    ModelShard shard;
    Backend* backend = nullptr;
    std::unique_ptr<Communicator> communicator;
  };
  /// Opens the checkpoint anew: ranks load at the same time, each from its own source.
  using OpenWeights = std::function<std::unique_ptr<WeightSource>()>;

  static constexpr std::chrono::milliseconds kPassLimit{10'000};

  /// @param ranks  those of this process, in the order of their shards' ranks, which follow one
  /// another; all of the model without a group
  /// @param group the processes that hold the others; may be null
  /// @param pass_limit how long the ranks may be at one pass
  /// @param options `progress` is called with the sums over all ranks, by one thread at a time
  /// @throws as Transformer, when any rank does; the others then stop at their next tensor
  ShardedModel(const ModelConfig& config, std::vector<Rank> ranks, const OpenWeights& open,
               const Transformer::Options& options,
               std::chrono::milliseconds pass_limit = kPassLimit,
               std::shared_ptr<ProcessGroup> group = nullptr);
  /// A thread that does not come back from its device after an abort is left behind.
  ~ShardedModel() override;

  Backend& backend() override { return leader().backend(); }
  int vocab_size() const override { return leader().vocab_size(); }
  int max_positions() const override { return leader().max_positions(); }
  int max_rows() const override { return leader().max_rows(); }
  int max_logits_rows() const override { return leader().max_logits_rows(); }

  void reserve(int sequence, int tokens, Stream& stream) override;
  void truncate(int sequence, int tokens, Stream& stream) override;
  void fork(int from, int to, int tokens, Stream& stream) override;
  TensorView forward(const Rows& rows, int first_logits_row, Stream& stream) override;
  void forward_argmax(const Rows& rows, int first_row, int32_t* ids, Stream& stream) override;
  /// Every rank captures its part of the passes; a launch launches all.
  std::unique_ptr<Graph> capture(Stream& stream, const std::function<void()>& work) override;
  void check() const override;
  void hold(DeviceId device, const Event& until) override;

  /// Decides how decode-sized passes go from GPU to GPU: a tensor split's sums, a layer split's
  /// hand-overs. Call it once, before the first pass.
  /// @return what was decided and why, in a line for people; empty where there is nothing to decide
  /// @throws UsageError for kPeer when the GPUs do not reach each other's memory; DeviceError
  std::string choose_all_reduce(AllReduce wanted);

  /// Ends the communication for good: passes that wait fail, now and later, in every process. Any
  /// thread.
  void abort(const std::string& reason);

  /// In a process without the leader: does what its process asks for until it is through.
  /// @throws DeviceError when any process or pass failed
  void serve();

  /// Of this process.
  int ranks() const { return static_cast<int>(members_.size()); }
  const Transformer& rank(int index) const {
    return members_[static_cast<size_t>(index)].rank->model();
  }

 private:
  class SharedGraph;
  struct Member {
    std::unique_ptr<ModelRank> rank;
    std::unique_ptr<DeviceWorker> worker;  ///< not the leader's
  };
  enum class OnError { kKeep, kAbort };  ///< whether a failure ends the communication
  /// The error that came first; outlives the model where a thread is left behind.
  struct FirstError {
    std::mutex mutex;
    std::exception_ptr error;
    std::atomic<bool> failed = false;     ///< for ranks at work
    std::atomic<bool> abandoned = false;  ///< the model is gone
  };

  Transformer& leader() { return members_[leader_].rank->model(); }
  const Transformer& leader() const { return members_[leader_].rank->model(); }
  /// Runs `task(index)` for every rank on its thread and waits for all. @throws what came first
  void run_all(OnError on_error, const std::function<void(size_t)>& task);
  /// The leader does its part on the calling thread, the others obey.
  void command_all(OnError on_error, const RankCommand& command,
                   const std::function<void()>& leaders_part);
  /// The ranks run a pass, of kind kForward or kArgmax, the leader as `leaders_part` says.
  void pass(RankCommand::Kind kind, int rows, int first_row, Stream& stream,
            const std::function<void()>& leaders_part);
  /// Every rank's sums go this way from now on.
  void use_peers(bool use);
  double measure_sums();
  /// Links a layer split's ranks over peer memory. @return what was decided, for people
  std::string link(AllReduce wanted);
  void wait_for_workers();
  /// Tells the ranks of other processes, if there are any.
  void tell(const RankCommand& command);
  std::string failure() const;
  /// "rank 1 (cuda:1)": a rank of the model, or, in a group, a process and its device.
  std::string name_of(size_t member) const;
  std::string describe_stall() const;
  std::string describe_late_processes() const;
  void start_watch();
  void launch(std::span<const int32_t> passes, Graph& leaders, Stream& stream);
  void forget(std::span<const int32_t> passes) noexcept;

  std::vector<std::unique_ptr<PeerExchange>>
      peers_;                                     ///< by rank; empty where there is no such thing
  std::vector<std::unique_ptr<PassLink>> links_;  ///< likewise
  std::vector<Member> members_;
  size_t leader_ = 0;  ///< among the members; of ranks that serve: the one that `serve` drives
  std::shared_ptr<ProcessGroup> group_;  ///< null where all ranks are here
  std::atomic<uint64_t> told_{0};        ///< commands to other processes so far
  bool capturing_ = false;
  std::vector<int32_t> captured_;  ///< numbers of the passes of the capture at work
  int32_t next_pass_ = 0;
  std::shared_ptr<FirstError> first_error_ = std::make_shared<FirstError>();
  std::chrono::milliseconds pass_limit_;
  std::unique_ptr<PassWatch> watch_;  ///< ends first
};

}  // namespace tandem
