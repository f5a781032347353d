#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "comm/communicator.h"
#include "model/device_worker.h"
#include "model/language_model.h"
#include "model/transformer.h"

namespace tandem {

/// A model whose ranks lie on several devices of this host, for a tensor or a layer split. To its
/// caller it looks like a model on the leader's device. The calling thread drives the leader's
/// device, a worker each of the others.
///
/// One thread at a time. When a rank fails in a pass, the group is aborted, the error that came
/// first is thrown, and every later pass throws DeviceError; MemoryError from `reserve` and `fork`
/// leaves the model usable.
class ShardedModel final : public LanguageModel {
 public:
  /// One rank's place. Backends must outlive the model; each one's shard.rank is its index.
  struct Rank {
    ModelShard shard;
    Backend* backend = nullptr;
    std::unique_ptr<Communicator> communicator;
  };
  /// Opens the checkpoint anew: ranks load at the same time, each from its own source.
  using OpenWeights = std::function<std::unique_ptr<WeightSource>()>;

  /// @param options `progress` is called with the sums over all ranks, by one thread at a time
  /// @throws as Transformer, when any rank does; the others then stop at their next tensor
  ShardedModel(const ModelConfig& config, std::vector<Rank> ranks, const OpenWeights& open,
               const Transformer::Options& options);
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

  int ranks() const { return static_cast<int>(members_.size()); }
  const Transformer& rank(int index) const { return *members_[static_cast<size_t>(index)].model; }

 private:
  struct Member {
    Backend* backend = nullptr;
    std::unique_ptr<Communicator> communicator;
    std::unique_ptr<Stream> stream;  ///< not the leader's, who works on its caller's
    std::unique_ptr<Transformer> model;
    std::unique_ptr<DeviceWorker> worker;  ///< not the leader's
  };
  enum class OnError { kKeep, kAbort };  ///< whether a failure ends the communication

  Transformer& leader() { return *members_[leader_].model; }
  const Transformer& leader() const { return *members_[leader_].model; }
  /// Runs `task(index)` for every rank on its thread and waits for all. @throws what came first
  void run_all(OnError on_error, const std::function<void(size_t)>& task);
  Stream& stream_of(size_t index, Stream& callers);

  std::vector<Member> members_;
  size_t leader_ = 0;
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::atomic<bool> failed_ = false;  ///< error_ is set: for ranks at work
};

}  // namespace tandem
