#pragma once

#include <map>
#include <memory>

#include "comm/communicator.h"
#include "model/rank_command.h"
#include "model/transformer.h"

namespace tandem {

/// One rank of a model that several share: its part of the model, its stream, and the passes that
/// it has captured. Every rank but the leader does nothing but obey. One thread: the device's.
class ModelRank {
 public:
  /// Borrows the backend. @throws as Transformer
  ModelRank(const ModelConfig& config, const ModelShard& shard, WeightSource& source,
            Backend& backend, std::unique_ptr<Communicator> communicator,
            const Transformer::Options& options);

  /// Queues what is asked for on the rank's own stream. A pass takes its rows from the leader.
  /// @throws as Transformer
  void execute(const RankCommand& command);

  /// Waits for what is queued on the rank's own stream. An error of the device is logged.
  void finish() noexcept;

  /// What is queued later on the rank's own stream starts after the event.
  void hold(const Event& until) { stream_->wait(until); }

  /// As Transformer's, on the rank's own stream.
  double measure_rank_sum() { return model_->measure_rank_sum(*stream_); }

  Transformer& model() { return *model_; }
  const Transformer& model() const { return *model_; }
  Communicator& communicator() { return *communicator_; }

 private:
  void forward(const RankCommand& command);
  void forward_argmax(const RankCommand& command);

  Backend& backend_;
  std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Transformer> model_;
  std::map<int32_t, std::unique_ptr<Graph>> graphs_;  ///< goes before the communicator
};

}  // namespace tandem
