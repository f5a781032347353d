#include "model/model_rank.h"

#include <string>
#include <utility>

#include "core/log.h"
#include "tandem/error.h"

namespace tandem {

ModelRank::ModelRank(const ModelConfig& config, const ModelShard& shard, WeightSource& source,
                     Backend& backend, std::unique_ptr<Communicator> communicator,
                     const Transformer::Options& options)
    : backend_(backend),
      communicator_(std::move(communicator)),
      stream_(backend.make_stream()),
      model_(std::make_unique<Transformer>(config, shard, source, backend, options,
                                           communicator_.get())) {}

void ModelRank::execute(const RankCommand& command) {
  switch (command.kind) {
    case RankCommand::Kind::kReserve:
      return model_->reserve(command.a, command.b, *stream_);
    case RankCommand::Kind::kTruncate:
      return model_->truncate(command.a, command.b, *stream_);
    case RankCommand::Kind::kFork:
      return model_->fork(command.a, command.b, command.c, *stream_);
    case RankCommand::Kind::kForward:
      return forward(command);
    case RankCommand::Kind::kArgmax:
      return forward_argmax(command);
    case RankCommand::Kind::kCaptureForward:
      graphs_[command.c] = backend_.capture(*stream_, [&] { forward(command); });
      return;
    case RankCommand::Kind::kCaptureArgmax:
      graphs_[command.c] = backend_.capture(*stream_, [&] { forward_argmax(command); });
      return;
    case RankCommand::Kind::kLaunch: {
      const auto graph = graphs_.find(command.c);
      if (graph == graphs_.end()) {
        throw ShapeError("model rank: no pass was captured under the number " +
                         std::to_string(command.c));
      }
      return graph->second->launch(*stream_);
    }
    case RankCommand::Kind::kForget:
      graphs_.erase(command.c);
      return;
    case RankCommand::Kind::kStop:
      graphs_.clear();
      return stream_->synchronize();
  }
}

void ModelRank::finish() noexcept {
  try {
    stream_->synchronize();
  } catch (const std::exception& error) {
    log().warn("at the end of a model's rank: {}", error.what());
  }
}

void ModelRank::forward(const RankCommand& command) {
  Rows rows;
  rows.count = command.a;
  model_->forward(rows, command.b, *stream_);
}

void ModelRank::forward_argmax(const RankCommand& command) {
  Rows rows;
  rows.count = command.a;
  model_->forward_argmax(rows, command.b, nullptr, *stream_);
}

}  // namespace tandem
