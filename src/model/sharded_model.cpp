#include "model/sharded_model.h"

#include <string>
#include <utility>

#include "tandem/error.h"

namespace tandem {
namespace {

/// Adds up the progress of ranks that load at the same time, and stops them all when one failed.
class SharedProgress {
 public:
  SharedProgress(const LoadProgress& progress, uint64_t total, size_t ranks,
                 const std::atomic<bool>& failed)
      : progress_(progress), total_(total), failed_(failed), done_(ranks, 0) {}

  LoadProgress of(size_t rank) {
    return [this, rank](uint64_t done, uint64_t) {
      // Never seen by callers: the error that came first is thrown.
      if (failed_) throw Error("sharded model: another rank failed to load");
      if (!progress_) return;
      const std::lock_guard lock(mutex_);
      done_[rank] = done;
      uint64_t sum = 0;
      for (const uint64_t bytes : done_) sum += bytes;
      progress_(sum, total_);
    };
  }

 private:
  const LoadProgress& progress_;
  const uint64_t total_;
  const std::atomic<bool>& failed_;
  std::mutex mutex_;
  std::vector<uint64_t> done_;
};

void check_ranks(const std::vector<ShardedModel::Rank>& ranks) {
  if (ranks.empty()) throw ShapeError("sharded model: there are no ranks");
  for (size_t i = 0; i < ranks.size(); ++i) {
    const ModelShard& shard = ranks[i].shard;
    if (shard.rank != static_cast<int>(i) || shard.world_size != static_cast<int>(ranks.size()) ||
        shard.split != ranks.front().shard.split) {
      throw ShapeError("sharded model: the shard of rank " + std::to_string(i) +
                       " does not fit its group");
    }
  }
}

}  // namespace

ShardedModel::ShardedModel(const ModelConfig& config, std::vector<Rank> ranks,
                           const OpenWeights& open, const Transformer::Options& options) {
  check_ranks(ranks);
  leader_ = static_cast<size_t>(ranks.front().shard.leader());
  uint64_t total = 0;
  {
    const std::unique_ptr<WeightSource> source = open();
    const FormatOf formats = options.formats ? options.formats : formats_as_stored(*source);
    for (const Rank& rank : ranks) {
      check_weights(config, rank.shard, *source);
      total += weights_bytes(config, rank.shard, formats, rank.backend->device().kind);
    }
  }
  for (size_t i = 0; i < ranks.size(); ++i) {
    Member member;
    member.backend = ranks[i].backend;
    member.communicator = std::move(ranks[i].communicator);
    if (i != leader_) member.worker = std::make_unique<DeviceWorker>();
    members_.push_back(std::move(member));
  }
  SharedProgress progress(options.progress, total, ranks.size(), failed_);
  run_all(OnError::kKeep, [&](size_t i) {
    Member& member = members_[i];
    Transformer::Options own = options;
    own.progress = progress.of(i);
    const std::unique_ptr<WeightSource> source = open();
    member.model = std::make_unique<Transformer>(config, ranks[i].shard, *source, *member.backend,
                                                 own, member.communicator.get());
    if (i != leader_) member.stream = member.backend->make_stream();
  });
}

ShardedModel::~ShardedModel() = default;

Stream& ShardedModel::stream_of(size_t index, Stream& callers) {
  return index == leader_ ? callers : *members_[index].stream;
}

void ShardedModel::run_all(OnError on_error, const std::function<void(size_t)>& task) {
  const auto guarded = [&](size_t i) {
    try {
      task(i);
    } catch (const std::exception& error) {
      {
        const std::lock_guard lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
        failed_ = true;
      }
      // The others may be waiting for this rank.
      if (on_error == OnError::kAbort) members_[i].communicator->abort(error.what());
    }
  };
  for (size_t i = 0; i < members_.size(); ++i) {
    if (i != leader_) members_[i].worker->post([&guarded, i] { guarded(i); });
  }
  guarded(leader_);
  for (size_t i = 0; i < members_.size(); ++i) {
    if (i != leader_) members_[i].worker->wait();
  }
  failed_ = false;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ShardedModel::reserve(int sequence, int tokens, Stream& stream) {
  // Every rank's page tables are the same: where the leader has nothing to do, nobody has.
  if (leader().cache().reserved_tokens(sequence) >= tokens) return;
  run_all(OnError::kKeep,
          [&](size_t i) { members_[i].model->reserve(sequence, tokens, stream_of(i, stream)); });
}

void ShardedModel::truncate(int sequence, int tokens, Stream& stream) {
  run_all(OnError::kKeep,
          [&](size_t i) { members_[i].model->truncate(sequence, tokens, stream_of(i, stream)); });
}

void ShardedModel::fork(int from, int to, int tokens, Stream& stream) {
  run_all(OnError::kKeep,
          [&](size_t i) { members_[i].model->fork(from, to, tokens, stream_of(i, stream)); });
}

TensorView ShardedModel::forward(const Rows& rows, int first_logits_row, Stream& stream) {
  leader().check_pass(rows.count, first_logits_row);
  TensorView logits;
  run_all(OnError::kAbort, [&](size_t i) {
    Rows own;
    own.count = rows.count;
    const TensorView result = members_[i].model->forward(i == leader_ ? rows : own,
                                                         first_logits_row, stream_of(i, stream));
    if (i == leader_) logits = result;
  });
  return logits;
}

}  // namespace tandem
