#include "model/sharded_model.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include "backend/backend.h"
#include "comm/thread_communicator.h"
#include "model/model_loader.h"
#include "model/token_scores.h"
#include "plan/placement.h"
#include "spec/model_drafter.h"
#include "spec/speculative_decoder.h"
#include "support/catch.h"
#include "support/forwarding_communicator.h"
#include "support/model_runner.h"
#include "support/repeating_source.h"
#include "tandem/error.h"

namespace tandem {
namespace {

const std::filesystem::path kSource = TANDEM_SOURCE_DIR;
const std::filesystem::path kMain = kSource / "models/demo/main";

/// Simulated devices and a model on them.
struct Devices {
  std::vector<std::unique_ptr<Backend>> backends;
  std::unique_ptr<ShardedModel> model;

  Devices(const std::filesystem::path& folder, const ModelConfig& config,
          const Placement& placement, const Transformer::Options& options,
          const std::string& capacity = "")
      : Devices([folder] { return open_weights(folder); }, config, placement, options, capacity) {}
  Devices(const ShardedModel::OpenWeights& open, const ModelConfig& config,
          const Placement& placement, const Transformer::Options& options,
          const std::string& capacity = "") {
    auto communicators = make_thread_communicators(placement.ranks());
    std::vector<ShardedModel::Rank> ranks;
    for (int i = 0; i < placement.ranks(); ++i) {
      backends.push_back(make_backend(parse_device("cpu:" + std::to_string(i) + capacity), 1));
      const auto index = static_cast<size_t>(i);
      ranks.push_back(
          {placement.shards[index], backends[index].get(), std::move(communicators[index])});
    }
    model = std::make_unique<ShardedModel>(config, std::move(ranks), open, options);
  }
};

Transformer::Options small() {
  Transformer::Options options;
  options.limits.max_positions = 160;
  options.limits.max_rows = 32;
  options.limits.max_sequences = 2;
  return options;
}

std::vector<int32_t> some_tokens(int count) {
  constexpr int kStep = 397, kVocab = 6144;
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((17 + i * kStep) % kVocab);
  return tokens;
}

Placement layers(const ModelConfig& config, int ranks) {
  return layer_placement(config, share_evenly(config.num_layers, ranks, 1));
}

std::unique_ptr<Transformer> single(const std::filesystem::path& folder, Backend& backend) {
  LoadOptions options;
  options.max_positions = 160;
  options.max_rows = 32;
  options.max_sequences = 2;
  return load_model(folder, backend, options);
}

TEST_CASE("A layer split gives the bits of one device") {
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const std::unique_ptr<Backend> backend = make_backend(parse_device("cpu"), 1);
  const auto alone = single(kMain, *backend);
  test::ModelRunner expected(*alone);
  const int ranks = GENERATE(2, 3, 7);
  Devices devices(kMain, config, layers(config, ranks), small());
  test::ModelRunner runner(*devices.model);
  const std::vector<int32_t> tokens = some_tokens(40);
  for (const auto& [first, count] : {std::pair{0, 32}, std::pair{32, 1}, std::pair{33, 7}}) {
    const auto part =
        std::span(tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    const std::vector<float> ours = runner.run(part, first), theirs = expected.run(part, first);
    REQUIRE(ours.size() == theirs.size());
    CHECK(std::memcmp(ours.data(), theirs.data(), ours.size() * sizeof(float)) == 0);
  }
  const auto prompt = std::span(tokens).first(20);
  CHECK(runner.greedy(prompt, 30) == expected.greedy(prompt, 30));
}

TEST_CASE("A tensor split gives one device's logits up to the order of sums, and its greedy text") {
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const std::unique_ptr<Backend> backend = make_backend(parse_device("cpu"), 1);
  const auto alone = single(kMain, *backend);
  test::ModelRunner expected(*alone);
  // 3 does not divide heads or vocabulary; 8 ranks share 4 kv heads.
  const int ranks = GENERATE(2, 3, 4, 8);
  Devices devices(kMain, config, tensor_placement(config, ranks), small());
  test::ModelRunner runner(*devices.model);
  const std::vector<int32_t> tokens = some_tokens(32);
  const std::vector<float> ours = runner.run(tokens, 0), theirs = expected.run(tokens, 0);
  REQUIRE(ours.size() == theirs.size());
  // Each of 7 layers has two sums of at most 896 float32 terms whose order differs; the error of
  // one grows with the root of its length, and the errors add up along the residual stream.
  constexpr double kSums = 2 * 7, kTerms = 896;
  const double tolerance = 0x1p-23 * std::sqrt(kTerms) * kSums;
  double largest = 0, scale = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(ours[i]) - theirs[i]));
    scale = std::max(scale, std::abs(static_cast<double>(theirs[i])));
  }
  CAPTURE(ranks, largest, scale);
  CHECK(largest <= tolerance * scale);
  CHECK(runner.greedy(tokens, 60) == expected.greedy(tokens, 60));
}

TEST_CASE("Under a tensor split too, a row has the same bits whatever rows travel with it") {
  const ModelConfig config = ModelConfig::from_folder(kMain);
  Devices devices(kMain, config, tensor_placement(config, 2), small());
  test::ModelRunner runner(*devices.model);
  const std::vector<int32_t> tokens = some_tokens(16);
  const std::vector<float> together = runner.run(tokens, 0);
  const auto vocab = static_cast<size_t>(config.vocab_size);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::vector<float> alone =
        runner.run(std::span(tokens).subspan(i, 1), static_cast<int>(i));
    REQUIRE(std::memcmp(alone.data(), together.data() + i * vocab, vocab * sizeof(float)) == 0);
  }
}

std::vector<int32_t> largest_of_rows(const std::vector<float>& logits, int vocab) {
  const auto columns = static_cast<size_t>(vocab);
  std::vector<int32_t> ids;
  for (size_t at = 0; at < logits.size(); at += columns) {
    ids.push_back(test::argmax(std::span(logits).subspan(at, columns)));
  }
  return ids;
}

TEST_CASE("Shares of a tensor split choose what the whole rows do, of equal logits the lowest id") {
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const bool repeats = GENERATE(false, true);
  const int ranks = GENERATE(2, 3, 5, 8);  // 5: shares of 1,229 and one of 1,228
  const auto open = [repeats]() -> std::unique_ptr<WeightSource> {
    if (repeats) return std::make_unique<test::RepeatingSource>(kMain);
    return open_weights(kMain);
  };
  Devices devices(open, config, tensor_placement(config, ranks), small());
  test::ModelRunner runner(*devices.model);
  const std::vector<int32_t> tokens = some_tokens(32);
  for (const auto& [count, first_row] : {std::pair{32, 0}, {32, 25}, {16, 0}, {3, 1}, {1, 0}}) {
    const auto part = std::span(tokens).first(static_cast<size_t>(count));
    const std::vector<int32_t> expected =
        largest_of_rows(runner.run(part, 0, 0, first_row), config.vocab_size);
    CAPTURE(repeats, ranks, count, first_row);
    CHECK(runner.run_argmax(part, 0, first_row) == expected);
    if (repeats)
      CHECK(*std::max_element(expected.begin(), expected.end()) < test::RepeatingSource::kPeriod);
  }
}

/// Counts the rows whose logits are gathered, and refuses what a tensor split is not connected for.
class CountingCommunicator final : public test::ForwardingCommunicator {
 public:
  /// @param share of the vocabulary: what is gathered besides is no multiple of it
  CountingCommunicator(std::unique_ptr<Communicator> inner, int64_t share,
                       std::atomic<int64_t>& rows)
      : ForwardingCommunicator(std::move(inner)), share_(share), rows_(rows) {}
  void all_gather(TensorView values, TensorView gathered, Stream& stream) override {
    if (values.count() % share_ == 0) rows_ += values.count() / share_;
    ForwardingCommunicator::all_gather(values, gathered, stream);
  }
  void send(TensorView, int, Stream&) override { throw DeviceError("nothing to be sent"); }
  void recv(TensorView, int, Stream&) override { throw DeviceError("nothing to be received"); }

 private:
  const int64_t share_;
  std::atomic<int64_t>& rows_;
};

std::vector<int32_t> text_of(SpeculativeDecoder& decoder, const DecodeSettings& settings) {
  constexpr size_t kTokens = 40;
  decoder.start(some_tokens(12), settings);
  std::vector<int32_t> tokens;
  while (tokens.size() < kTokens) {
    const RoundResult& round = decoder.round(static_cast<int>(kTokens - tokens.size()));
    tokens.insert(tokens.end(), round.tokens.begin(), round.tokens.end());
  }
  return tokens;
}

TEST_CASE("Greedy rounds of a tensor split gather no logits unless whole rows are wanted") {
  constexpr int kRanks = 3, kDrafts = 3;
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const Placement placement = tensor_placement(config, kRanks);
  const int64_t share = placement.shards.front().vocab.size();
  std::atomic<int64_t> rows{0};
  auto communicators = make_thread_communicators(kRanks);
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<ShardedModel::Rank> ranks;
  for (size_t i = 0; i < kRanks; ++i) {
    backends.push_back(make_backend(parse_device("cpu:" + std::to_string(i)), 1));
    ranks.push_back(
        {placement.shards[i], backends[i].get(),
         std::make_unique<CountingCommunicator>(std::move(communicators[i]), share, rows)});
  }
  ShardedModel model(
      config, std::move(ranks), [] { return open_weights(kMain); }, small());
  const auto draft = single(kSource / "models/demo/draft", *backends[0]);
  SpeculativeDecoder decoder(
      model, std::make_unique<ModelDrafter>(*draft, config.vocab_size, std::vector<uint8_t>{}),
      kDrafts);

  DecodeSettings greedy;
  const std::vector<int32_t> text = text_of(decoder, greedy);
  greedy.num_speculative_tokens = kDrafts;
  CHECK(text_of(decoder, greedy) == text);
  CHECK(rows == 0);
  for (const int drafts : {0, kDrafts}) {
    DecodeSettings whole;
    whole.num_speculative_tokens = drafts;
    whole.logprobs = 1;
    const int64_t before = rows;
    CHECK(text_of(decoder, whole) == text);
    CHECK(rows > before);
  }
  DecodeSettings penalised;
  penalised.rule.transform.presence_penalty = 0.5f;
  const int64_t before = rows;
  text_of(decoder, penalised);
  CHECK(rows > before);
}

TEST_CASE("Families of every kind can be split") {
  const std::string name =
      GENERATE("llama-biases", "qwen2-untied", "qwen3", "mistral", "llama-3-new");
  const std::filesystem::path folder = kSource / "tests/data/families" / name;
  const ModelConfig config = ModelConfig::from_folder(folder);
  const std::unique_ptr<Backend> backend = make_backend(parse_device("cpu"), 1);
  Transformer::Options options;
  options.limits = {.max_positions = 40, .max_rows = 40};
  LoadOptions load;
  load.max_rows = 40;
  const auto alone = load_model(folder, *backend, load);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 40; ++i) tokens.push_back(i * 7 % config.vocab_size);
  const TokenScores expected = score_tokens(*alone, tokens, 4);
  for (const Placement& placement : {layers(config, 2), tensor_placement(config, 2)}) {
    Devices devices(folder, config, placement, options);
    const TokenScores scores = score_tokens(*devices.model, tokens, 4);
    CAPTURE(name, static_cast<int>(placement.split));
    CHECK(scores.top_ids == expected.top_ids);
    for (size_t i = 0; i < tokens.size(); ++i)
      CHECK(scores.logsumexp[i] == Approx(expected.logsumexp[i]).epsilon(1e-5));
  }
}

TEST_CASE("Sequences fork and go back on every rank") {
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const Placement placement =
      GENERATE_COPY(as<Placement>{}, layers(config, 2), tensor_placement(config, 2));
  Devices devices(kMain, config, placement, small());
  test::ModelRunner runner(*devices.model);
  const std::vector<int32_t> tokens = some_tokens(20);
  const auto prompt = std::span(tokens).first(12), rest = std::span(tokens).last(8);
  runner.run(prompt, 0);
  const std::vector<float> expected = runner.run(rest, 12);
  devices.model->truncate(0, 12, runner.stream());
  devices.model->fork(0, 1, 12, runner.stream());
  CHECK(runner.run(rest, 12, 1) == expected);
  CHECK_THROWS_AS(devices.model->reserve(0, 161, runner.stream()), MemoryError);
  CHECK(runner.run(rest, 12, 0) == expected);
}

TEST_CASE("Every rank allocates what is planned for it") {
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const std::unique_ptr<WeightSource> source = open_weights(kMain);
  const FormatOf formats = formats_as_stored(*source);
  for (const Placement& placement :
       {layers(config, 3), tensor_placement(config, 2), tensor_placement(config, 8)}) {
    Transformer::Options options = small();
    uint64_t done = 0, total = 0;
    options.progress = [&](uint64_t now, uint64_t all) {
      done = now;
      total = all;
    };
    Devices devices(kMain, config, placement, options);
    uint64_t weights = 0;
    for (int i = 0; i < placement.ranks(); ++i) {
      const ModelShard& shard = placement.shards[static_cast<size_t>(i)];
      const Transformer& rank = devices.model->rank(i);
      CHECK(rank.weights_bytes() == weights_bytes(config, shard, formats, DeviceKind::kCpu));
      CHECK(devices.backends[static_cast<size_t>(i)]->memory().allocated_bytes() ==
            rank.weights_bytes() + kv_bytes(config, shard, options.limits, DeviceKind::kCpu) +
                activation_bytes(config, shard, formats, options.limits, DeviceKind::kCpu) +
                logits_bytes(config, shard, options.limits));
      weights += rank.weights_bytes();
    }
    CHECK(done == weights);
    CHECK(total == weights);
  }
}

/// Fails at its nth sum (all-reduce, or gather for the few rows of a round) and passes everything
/// else on.
class FailingCommunicator final : public test::ForwardingCommunicator {
 public:
  FailingCommunicator(std::unique_ptr<Communicator> inner, int sums)
      : ForwardingCommunicator(std::move(inner)), sums_(sums) {}
  void all_reduce_sum(TensorView values, Stream& stream) override {
    count();
    ForwardingCommunicator::all_reduce_sum(values, stream);
  }
  void all_gather(TensorView values, TensorView gathered, Stream& stream) override {
    count();
    ForwardingCommunicator::all_gather(values, gathered, stream);
  }

 private:
  void count() {
    if (sums_-- == 0) throw DeviceError("rank " + std::to_string(rank()) + " lost its device");
  }

  int sums_;
};

/// Answers nothing for a while at its nth gather.
class StallingCommunicator final : public test::ForwardingCommunicator {
 public:
  StallingCommunicator(std::unique_ptr<Communicator> inner, int gathers,
                       std::chrono::milliseconds pause)
      : ForwardingCommunicator(std::move(inner)), gathers_(gathers), pause_(pause) {}
  void all_gather(TensorView values, TensorView gathered, Stream& stream) override {
    if (gathers_-- == 0) std::this_thread::sleep_for(pause_);
    ForwardingCommunicator::all_gather(values, gathered, stream);
  }

 private:
  int gathers_;
  const std::chrono::milliseconds pause_;
};

TEST_CASE("A rank that stalls is named after the time limit, and nobody waits for it any longer") {
  using namespace std::chrono_literals;
  constexpr int kRanks = 3, kGathersBefore = 4;
  const int stalling = GENERATE(1, 2);
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const Placement placement = tensor_placement(config, kRanks);
  auto communicators = make_thread_communicators(kRanks);
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<ShardedModel::Rank> ranks;
  for (int i = 0; i < kRanks; ++i) {
    const auto index = static_cast<size_t>(i);
    backends.push_back(make_backend(parse_device("cpu:" + std::to_string(i)), 1));
    if (i == stalling) {
      communicators[index] = std::make_unique<StallingCommunicator>(std::move(communicators[index]),
                                                                    kGathersBefore, 2500ms);
    }
    ranks.push_back(
        {placement.shards[index], backends[index].get(), std::move(communicators[index])});
  }
  ShardedModel model(
      config, std::move(ranks), [] { return open_weights(kMain); }, small(), 1000ms);
  test::ModelRunner runner(model);
  const std::vector<int32_t> tokens = some_tokens(3);
  const std::string stalls = "rank " + std::to_string(stalling) +
                             " (cpu:" + std::to_string(stalling) +
                             ") did not finish a pass within 1.0 s";
  CHECK_THROWS_WITH(runner.run(tokens, 0), ContainsText(stalls));
  CHECK_THROWS_WITH(model.check(), ContainsText(stalls));
  CHECK_THROWS_WITH(runner.run(tokens, 0), ContainsText(stalls));
}

TEST_CASE("A rank that fails in a pass takes the others along instead of leaving them waiting") {
  constexpr int kRanks = 3, kSumsBeforeFailure = 4;
  const int failing = GENERATE(0, 1, 2);
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const Placement placement = tensor_placement(config, kRanks);
  auto communicators = make_thread_communicators(kRanks);
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<ShardedModel::Rank> ranks;
  for (int i = 0; i < kRanks; ++i) {
    const auto index = static_cast<size_t>(i);
    backends.push_back(make_backend(parse_device("cpu:" + std::to_string(i)), 1));
    if (i == failing) {
      communicators[index] = std::make_unique<FailingCommunicator>(std::move(communicators[index]),
                                                                   kSumsBeforeFailure);
    }
    ranks.push_back(
        {placement.shards[index], backends[index].get(), std::move(communicators[index])});
  }
  ShardedModel model(
      config, std::move(ranks), [] { return open_weights(kMain); }, small());
  test::ModelRunner runner(model);
  const std::vector<int32_t> tokens = some_tokens(GENERATE(3, 20));
  const std::string lost = "rank " + std::to_string(failing) + " lost its device";
  CHECK_THROWS_WITH(runner.run(tokens, 0), lost);
  CHECK_THROWS_WITH(runner.run(tokens, 0), ContainsText("aborted: " + lost));
}

TEST_CASE("When a device is too small, loading fails and nothing stays behind") {
  const ModelConfig config = ModelConfig::from_folder(kMain);
  CHECK_THROWS_AS(Devices(kMain, config, layers(config, 2), small(), "=4MiB"), MemoryError);
}

/// A checkpoint that tells when its rank is done with it.
class WatchedSource final : public WeightSource {
 public:
  WatchedSource(std::unique_ptr<WeightSource> inner, std::atomic<int>& closed)
      : inner_(std::move(inner)), closed_(closed) {}
  ~WatchedSource() override { ++closed_; }
  std::string name() const override { return inner_->name(); }
  bool has(std::string_view tensor) const override { return inner_->has(tensor); }
  TensorInfo info(std::string_view tensor) const override { return inner_->info(tensor); }
  HostMatrix tensor(std::string_view tensor) override { return inner_->tensor(tensor); }
  void done_with(std::string_view tensor) override { inner_->done_with(tensor); }

 private:
  std::unique_ptr<WeightSource> inner_;
  std::atomic<int>& closed_;
};

TEST_CASE("A rank that cannot load stops the others") {
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const Placement placement = layers(config, 2);
  auto communicators = make_thread_communicators(2);
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<ShardedModel::Rank> ranks;
  for (size_t i = 0; i < 2; ++i) {
    const std::string device = i == 0 ? "cpu:0" : "cpu:1=1MiB";
    backends.push_back(make_backend(parse_device(device), 1));
    ranks.push_back({placement.shards[i], backends[i].get(), std::move(communicators[i])});
  }
  std::atomic<int> closed{0};
  uint64_t loaded = 0, whole = 0;
  Transformer::Options options = small();
  options.progress = [&](uint64_t done, uint64_t total) {
    using namespace std::chrono_literals;
    // The checkpoint that the headers were checked in is closed, and so is rank 1's.
    while (closed < 2) std::this_thread::sleep_for(1ms);
    std::this_thread::sleep_for(10ms);  // rank 1 is about to say so
    loaded = done;
    whole = total;
  };
  const auto load = [&] {
    ShardedModel(
        config, std::move(ranks),
        [&] { return std::make_unique<WatchedSource>(open_weights(kMain), closed); }, options);
  };
  CHECK_THROWS_AS(load(), MemoryError);
  CHECK(loaded <= whole / 4);  // rank 0 holds about half
  for (const auto& backend : backends) CHECK(backend->memory().allocated_bytes() == 0);
}

TEST_CASE("A load that is cancelled half-way leaves nothing allocated on any device") {
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const int count = GENERATE(2, 3);
  const Placement placement = tensor_placement(config, count);
  auto communicators = make_thread_communicators(count);
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<ShardedModel::Rank> ranks;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    backends.push_back(make_backend(parse_device("cpu:" + std::to_string(i) + "=96MiB"), 1));
    ranks.push_back({placement.shards[i], backends[i].get(), std::move(communicators[i])});
  }
  uint64_t allocated = 0;
  Transformer::Options options = small();
  options.progress = [&](uint64_t done, uint64_t total) {
    allocated = std::max(allocated, backends[0]->memory().allocated_bytes());
    if (done >= total / 2) throw CancelledError("enough");
  };
  const auto load = [&] {
    ShardedModel(
        config, std::move(ranks), [] { return open_weights(kMain); }, options);
  };
  CHECK_THROWS_AS(load(), CancelledError);
  CHECK(allocated > 0);
  for (const auto& backend : backends) CHECK(backend->memory().allocated_bytes() == 0);
}

TEST_CASE("Ranks that do not belong together are refused") {
  const ModelConfig config = ModelConfig::from_folder(kMain);
  Placement placement = layers(config, 2);
  std::swap(placement.shards[0], placement.shards[1]);
  CHECK_THROWS_AS(Devices(kMain, config, placement, small()), ShapeError);
}

}  // namespace
}  // namespace tandem
