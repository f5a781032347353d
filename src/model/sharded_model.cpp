#include "model/sharded_model.h"

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "core/log.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// How long a device's thread may take to come back after an abort.
constexpr std::chrono::milliseconds kLeaveBehind{3'000};
constexpr int64_t kMillisecondsPerSecond = 1000, kMillisecondsPerTenth = 100;

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

void check_ranks(const std::vector<ShardedModel::Rank>& ranks, const ProcessGroup* group) {
  if (ranks.empty()) throw ShapeError("sharded model: there are no ranks");
  const ModelShard& first = ranks.front().shard;
  const int here = static_cast<int>(ranks.size());
  const bool leads = first.leader() >= first.rank && first.leader() < first.rank + here;
  if (group == nullptr ? first.world_size != here : leads != (group->rank() == 0)) {
    throw ShapeError("sharded model: the leader has to be in the first process, with " +
                     std::to_string(here) + " of " + std::to_string(first.world_size) + " ranks");
  }
  for (size_t i = 0; i < ranks.size(); ++i) {
    const ModelShard& shard = ranks[i].shard;
    if (shard.rank != first.rank + static_cast<int>(i) || shard.world_size != first.world_size ||
        shard.split != first.split) {
      throw ShapeError("sharded model: the shard of rank " + std::to_string(i) +
                       " does not fit its group");
    }
  }
}

}  // namespace

ShardedModel::ShardedModel(const ModelConfig& config, std::vector<Rank> ranks,
                           const OpenWeights& open, const Transformer::Options& options,
                           std::chrono::milliseconds pass_limit,
                           std::shared_ptr<ProcessGroup> group)
    : group_(std::move(group)), pass_limit_(pass_limit) {
  check_ranks(ranks, group_.get());
  const ModelShard& first = ranks.front().shard;
  const bool serves = group_ != nullptr && group_->rank() != 0;
  leader_ = serves ? 0 : static_cast<size_t>(first.leader() - first.rank);
  uint64_t total = 0;
  {
    const std::unique_ptr<WeightSource> source = open();
    const FormatOf formats = options.formats ? options.formats : formats_as_stored(*source);
    for (const Rank& rank : ranks) {
      check_weights(config, rank.shard, *source);
      total += weights_bytes(config, rank.shard, formats, rank.backend->device().kind);
    }
  }
  members_.resize(ranks.size());
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (i != leader_) members_[i].worker = std::make_unique<DeviceWorker>();
  }
  SharedProgress progress(options.progress, total, ranks.size(), first_error_->failed);
  run_all(OnError::kKeep, [&](size_t i) {
    Transformer::Options own = options;
    own.progress = progress.of(i);
    const std::unique_ptr<WeightSource> source = open();
    members_[i].rank = std::make_unique<ModelRank>(
        config, ranks[i].shard, *source, *ranks[i].backend, std::move(ranks[i].communicator), own);
  });
  start_watch();
}

ShardedModel::~ShardedModel() {
  watch_.reset();
  if (group_ != nullptr && group_->rank() == 0 && failure().empty()) {
    try {
      tell({RankCommand::Kind::kStop});
    } catch (const std::exception& error) {
      log().warn("the other processes were not told of the end: {}", error.what());
    }
  }
  // Behind an abort ranks may still be at what was queued for them, which writes into the others'
  // memory: all of them finish before any memory goes.
  for (Member& member : members_) {
    if (member.worker == nullptr || member.worker->busy()) continue;
    member.worker->post([&rank = *member.rank] { rank.finish(); });
  }
  for (Member& member : members_) {
    if (member.worker == nullptr || member.worker->wait_for(kLeaveBehind)) continue;
    log().error("a device's thread does not come back; it is left behind with what it holds");
    first_error_->abandoned = true;
    (void)member.worker.release();
    (void)member.rank.release();
  }
}

void ShardedModel::start_watch() {
  watch_ = std::make_unique<PassWatch>(
      PassWatch::Options{.limit = pass_limit_,
                         .make_event = [this] { return backend().make_event(); },
                         .failure = [this] { return failure(); },
                         .describe_stall = [this] { return describe_stall(); },
                         .on_failure = [this](const std::string& reason) { abort(reason); }});
}

std::string ShardedModel::failure() const {
  if (group_ != nullptr) {
    std::string failure = group_->failure();
    if (!failure.empty()) return failure;
  }
  for (const Member& member : members_) {
    const std::string failure = member.rank->communicator().failure();
    if (!failure.empty()) return failure;
  }
  return {};
}

void ShardedModel::check() const {
  const std::string reason = failure();
  if (!reason.empty()) throw DeviceError(reason);
}

std::string ShardedModel::name_of(size_t member) const {
  const Backend& backend = members_[member].rank->model().backend();
  if (group_ == nullptr) {
    return "rank " + std::to_string(member) + " (" + to_string(backend.device()) + ")";
  }
  return members_.size() == 1 ? group_->own_name()
                              : group_->own_name() + ", " + to_string(backend.device());
}

std::string ShardedModel::describe_late_processes() const {
  std::string late;
  if (group_ == nullptr || group_->rank() != 0) return late;
  for (int process = 1; process < group_->size(); ++process) {
    if (group_->progress(process) >= told_) continue;
    late += (late.empty() ? "" : ", ") + group_->name_of(process);
  }
  return late;
}

void ShardedModel::hold(DeviceId device, const Event& until) {
  for (size_t i = 0; i < members_.size(); ++i) {
    ModelRank& rank = *members_[i].rank;
    if (i != leader_ && rank.model().backend().device() == device) rank.hold(until);
  }
}

std::string ShardedModel::describe_stall() const {
  std::string waiting, missing = describe_late_processes();
  for (size_t i = 0; i < members_.size(); ++i) {
    const bool busy = members_[i].worker != nullptr && members_[i].worker->busy() &&
                      !members_[i].rank->communicator().waiting();
    std::string& names = busy ? missing : waiting;
    names += (names.empty() ? "" : ", ") + name_of(i);
  }
  return (missing.empty() ? waiting : missing) + " did not finish a pass within " +
         std::to_string(pass_limit_.count() / kMillisecondsPerSecond) + "." +
         std::to_string(pass_limit_.count() % kMillisecondsPerSecond / kMillisecondsPerTenth) +
         " s";
}

void ShardedModel::run_all(OnError on_error, const std::function<void(size_t)>& task) {
  // What the workers run owns what it needs: one of them may be left behind.
  const auto guarded = [this, first = first_error_, on_error, task](size_t i) {
    try {
      task(i);
    } catch (const std::exception& error) {
      {
        const std::lock_guard lock(first->mutex);
        if (!first->error) first->error = std::current_exception();
        first->failed = true;
      }
      // The others may be waiting for this rank.
      if (on_error == OnError::kAbort && !first->abandoned) {
        abort(group_ == nullptr ? error.what() : name_of(i) + ": " + error.what());
      }
    }
  };
  for (size_t i = 0; i < members_.size(); ++i) {
    if (i != leader_) members_[i].worker->post([guarded, i] { guarded(i); });
  }
  guarded(leader_);
  wait_for_workers();
  first_error_->failed = false;
  std::exception_ptr error;
  {
    const std::lock_guard lock(first_error_->mutex);
    error = std::exchange(first_error_->error, nullptr);
  }
  if (error) std::rethrow_exception(error);
}

void ShardedModel::wait_for_workers() {
  constexpr std::chrono::milliseconds kSlice{100};
  for (size_t i = 0; i < members_.size(); ++i) {
    if (i == leader_) continue;
    DeviceWorker& worker = *members_[i].worker;
    if (watch_ == nullptr) {  // loading takes as long as it takes
      worker.wait();
      continue;
    }
    std::chrono::milliseconds left = kLeaveBehind;
    while (!worker.wait_for(kSlice)) {
      if (failure().empty()) continue;
      left -= kSlice;
      if (left.count() <= 0) throw DeviceError(failure());
    }
  }
}

void ShardedModel::abort(const std::string& reason) {
  // What this process's ranks share is aborted by any of them.
  members_[leader_].rank->communicator().abort(reason);
  if (!peers_.empty()) peers_[leader_]->abort();
  if (!links_.empty()) links_[leader_]->abort();
  if (group_ != nullptr) group_->abort(reason);
}

void ShardedModel::tell(const RankCommand& command) {
  if (group_ == nullptr) return;
  check();
  ++told_;
  group_->tell({reinterpret_cast<const char*>(&command), sizeof(command)});
}

void ShardedModel::serve() {
  for (uint64_t done = 0;; group_->note_progress(++done)) {
    const std::string told = group_->hear();
    RankCommand command;
    if (told.size() != sizeof(command)) {
      throw DeviceError("rank 0 asked for something that this version of tandem does not know");
    }
    std::memcpy(&command, told.data(), sizeof(command));
    try {
      run_all(OnError::kAbort, [this, command](size_t i) { members_[i].rank->execute(command); });
    } catch (const std::exception&) {
      check();  // what every process says
      throw;
    }
    if (command.kind == RankCommand::Kind::kStop) return;
  }
}

void ShardedModel::use_peers(bool use) {
  for (size_t i = 0; i < members_.size(); ++i) {
    members_[i].rank->model().rank_sum()->use(use ? peers_[i].get() : nullptr);
  }
}

double ShardedModel::measure_sums() {
  double seconds = 0;
  run_all(OnError::kAbort, [&](size_t i) {
    const double own = members_[i].rank->measure_rank_sum();
    if (i == leader_) seconds = own;
  });
  return seconds;
}

std::string ShardedModel::choose_all_reduce(AllReduce wanted) {
  if (backend().device().kind == DeviceKind::kCpu) return {};
  if (leader().shard().split == Split::kLayer) return link(wanted);
  if (leader().rank_sum() == nullptr) return {};
  if (group_ != nullptr) {
    if (wanted == AllReduce::kPeer) {
      throw UsageError(
          "communication.all_reduce is \"peer\", but GPUs of several processes do not reach each "
          "other's memory; take \"auto\" or \"nccl\"");
    }
    return "all-reduce: NCCL, between processes";
  }
  constexpr int kPeerMultiple = 4;  // elements that an exchange is a multiple of
  if (leader().config().hidden_size % kPeerMultiple == 0 && wanted != AllReduce::kNccl) {
    std::vector<PeerMember> ends;
    for (Member& member : members_) ends.push_back(member.rank->model().rank_sum()->peer_member());
    peers_ = join_peers(ends, leader().rank_sum()->max_words());
  }
  if (peers_.empty()) {
    if (wanted == AllReduce::kPeer) {
      throw UsageError(
          "communication.all_reduce is \"peer\", but these GPUs do not reach each other's memory; "
          "take \"auto\" or \"nccl\"");
    }
    return wanted == AllReduce::kNccl
               ? "all-reduce: NCCL, as asked for"
               : "all-reduce: NCCL, since the GPUs do not reach each other's memory";
  }
  const auto in_microseconds = [](double seconds) {
    constexpr double kMicroseconds = 1e6, kTenths = 10;
    std::string text = std::to_string(std::lround(seconds * kMicroseconds * kTenths));
    return text.substr(0, text.size() - 1) + "." + text.back() + " us";
  };
  const double nccl = measure_sums();
  use_peers(true);
  const double peer = measure_sums();
  const bool use = wanted == AllReduce::kPeer || peer <= nccl;
  use_peers(use);
  return std::string("all-reduce: ") + (use ? "peer" : "NCCL") + ", one row takes " +
         in_microseconds(peer) + " through peer memory and " + in_microseconds(nccl) +
         " through NCCL";
}

std::string ShardedModel::link(AllReduce wanted) {
  if (wanted == AllReduce::kNccl) return "hand-overs: NCCL, as asked for";
  if (group_ != nullptr) return "hand-overs: NCCL, between processes";
  const ModelConfig& config = leader().config();
  constexpr int kWordElements = 2;  // activations that make a word
  if (config.hidden_size % kWordElements == 0) {
    std::vector<LinkMember> ends;
    for (Member& member : members_) ends.push_back(member.rank->model().link_member());
    links_ = link_ranks(ends, link_words(config, leader().limits(), backend().device().kind));
  }
  if (links_.empty()) {
    return "hand-overs: NCCL, since the GPUs do not reach each other's memory";
  }
  for (size_t i = 0; i < members_.size(); ++i) members_[i].rank->model().use(links_[i].get());
  return "hand-overs: through peer memory";
}

void ShardedModel::command_all(OnError on_error, const RankCommand& command,
                               const std::function<void()>& leaders_part) {
  // A pass needs all ranks at once. What only the host does may fail here, and then no other
  // process should have done it.
  if (on_error == OnError::kAbort) tell(command);
  run_all(on_error, [this, command, &leaders_part](size_t i) {
    if (i == leader_) {
      leaders_part();
    } else {
      members_[i].rank->execute(command);
    }
  });
  if (on_error == OnError::kKeep) tell(command);
}

void ShardedModel::reserve(int sequence, int tokens, Stream& stream) {
  // Every rank's page tables are the same: where the leader has nothing to do, nobody has.
  if (leader().cache().reserved_tokens(sequence) >= tokens) return;
  command_all(OnError::kKeep, {RankCommand::Kind::kReserve, sequence, tokens},
              [&] { leader().reserve(sequence, tokens, stream); });
}

void ShardedModel::truncate(int sequence, int tokens, Stream& stream) {
  command_all(OnError::kKeep, {RankCommand::Kind::kTruncate, sequence, tokens},
              [&] { leader().truncate(sequence, tokens, stream); });
}

void ShardedModel::fork(int from, int to, int tokens, Stream& stream) {
  command_all(OnError::kKeep, {RankCommand::Kind::kFork, from, to, tokens},
              [&] { leader().fork(from, to, tokens, stream); });
}

void ShardedModel::pass(RankCommand::Kind kind, int rows, int first_row, Stream& stream,
                        const std::function<void()>& leaders_part) {
  leader().check_pass(rows, first_row);
  RankCommand command{kind, rows, first_row};
  if (capturing_) {
    command.kind = kind == RankCommand::Kind::kArgmax ? RankCommand::Kind::kCaptureArgmax
                                                      : RankCommand::Kind::kCaptureForward;
    command.c = next_pass_++;
    captured_.push_back(command.c);
  }
  if (!capturing_) watch_->begin();
  command_all(OnError::kAbort, command, leaders_part);
  if (!capturing_) watch_->queued(stream);
}

TensorView ShardedModel::forward(const Rows& rows, int first_logits_row, Stream& stream) {
  TensorView logits;
  pass(RankCommand::Kind::kForward, rows.count, first_logits_row, stream,
       [&] { logits = leader().forward(rows, first_logits_row, stream); });
  return logits;
}

void ShardedModel::forward_argmax(const Rows& rows, int first_row, int32_t* ids, Stream& stream) {
  pass(RankCommand::Kind::kArgmax, rows.count, first_row, stream,
       [&] { leader().forward_argmax(rows, first_row, ids, stream); });
}

/// What the leader captured, and the numbers under which the others keep their parts.
class ShardedModel::SharedGraph final : public Graph {
 public:
  SharedGraph(ShardedModel& model, std::unique_ptr<Graph> leaders, std::vector<int32_t> passes)
      : model_(model), leaders_(std::move(leaders)), passes_(std::move(passes)) {}
  ~SharedGraph() override { model_.forget(passes_); }
  SharedGraph(const SharedGraph&) = delete;
  SharedGraph& operator=(const SharedGraph&) = delete;

  void launch(Stream& stream) override { model_.launch(passes_, *leaders_, stream); }

 private:
  ShardedModel& model_;
  std::unique_ptr<Graph> leaders_;
  std::vector<int32_t> passes_;
};

std::unique_ptr<Graph> ShardedModel::capture(Stream& stream, const std::function<void()>& work) {
  captured_.clear();
  capturing_ = true;
  std::unique_ptr<Graph> leaders;
  try {
    leaders = backend().capture(stream, work);
  } catch (...) {
    capturing_ = false;
    forget(captured_);
    throw;
  }
  capturing_ = false;
  return std::make_unique<SharedGraph>(*this, std::move(leaders), std::move(captured_));
}

void ShardedModel::launch(std::span<const int32_t> passes, Graph& leaders, Stream& stream) {
  check();
  if (passes.empty()) return leaders.launch(stream);  // a device that runs work when it is launched
  watch_->begin();
  const std::vector<int32_t> numbers(passes.begin(), passes.end());
  for (const int32_t pass : numbers) tell({RankCommand::Kind::kLaunch, 0, 0, pass});
  run_all(OnError::kAbort, [this, numbers, &leaders, &stream](size_t i) {
    if (i == leader_) return leaders.launch(stream);
    for (const int32_t pass : numbers) {
      members_[i].rank->execute({RankCommand::Kind::kLaunch, 0, 0, pass});
    }
  });
  watch_->queued(stream);
}

void ShardedModel::forget(std::span<const int32_t> passes) noexcept {
  for (const int32_t pass : passes) {
    if (group_ != nullptr && !failure().empty()) return;  // every process gives up all it captured
    try {
      command_all(OnError::kKeep, {RankCommand::Kind::kForget, 0, 0, pass}, [] {});
    } catch (const std::exception& error) {
      log().warn("a captured pass was not given back: {}", error.what());
    }
  }
}

}  // namespace tandem
