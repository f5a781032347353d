// The bundled pair over several GPUs; skipped, saying so, where there are none.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <future>
#include <thread>

#include "backend/backend.h"
#include "backend/peer_exchange.h"
#include "comm/nccl_communicator.h"
#include "model/model_loader.h"
#include "model/sharded_model.h"
#include "plan/placement.h"
#include "spec/model_drafter.h"
#include "spec/remote_drafter.h"
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
const std::filesystem::path kDraft = kSource / "models/demo/draft";

/// 2 and, where the machine has so many, 4; none says why.
std::vector<int> rank_counts() {
  int gpus = 0;
  for (const DeviceInfo& device : list_devices()) gpus += device.id.kind == DeviceKind::kCuda;
  std::vector<int> counts;
  for (const int count : {2, 4}) {
    if (has_nccl() && gpus >= count) counts.push_back(count);
  }
  if (counts.empty()) WARN("no two GPUs with NCCL: this test was skipped");
  return counts;
}

std::unique_ptr<Backend> gpu(int index) {
  return make_backend({.id = {.kind = DeviceKind::kCuda, .index = index}, .capacity_bytes = {}});
}

Transformer::Options options() {
  Transformer::Options options;
  options.limits = {.max_positions = 512, .max_rows = 64};
  return options;
}

/// The main model over GPUs 0, 1, …
struct Split {
  std::vector<std::unique_ptr<Backend>> backends;
  std::unique_ptr<ShardedModel> model;
  std::string sums;

  Split(
      const ModelConfig& config, const Placement& placement, AllReduce all_reduce,
      const ShardedModel::OpenWeights& open = [] { return open_weights(kMain); }) {
    std::vector<int> devices;
    for (int i = 0; i < placement.ranks(); ++i) {
      backends.push_back(gpu(i));
      devices.push_back(i);
    }
    auto communicators = make_nccl_communicators(draw_nccl_id(), placement.ranks(), 0, devices,
                                                 traffic_of(placement.split));
    std::vector<ShardedModel::Rank> ranks;
    for (size_t i = 0; i < backends.size(); ++i) {
      ranks.push_back({placement.shards[i], backends[i].get(), std::move(communicators[i])});
    }
    model = std::make_unique<ShardedModel>(config, std::move(ranks), open, options());
    sums = model->choose_all_reduce(all_reduce);
  }
};

Placement layers(const ModelConfig& config, int ranks) {
  return layer_placement(config, share_evenly(config.num_layers, ranks, 1));
}

std::unique_ptr<Transformer> single(const std::filesystem::path& folder, Backend& backend) {
  const ModelConfig config = ModelConfig::from_folder(folder);
  const auto source = open_weights(folder);
  return std::make_unique<Transformer>(config, ModelShard::whole(config), *source, backend,
                                       options());
}

std::vector<int32_t> some_tokens(int count) {
  constexpr int kStep = 397, kVocab = 6144;
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((17 + i * kStep) % kVocab);
  return tokens;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Logits of a prefill, of one row and of several.
std::vector<std::vector<float>> logits_of(LanguageModel& model) {
  test::ModelRunner runner(model);
  const std::vector<int32_t> tokens = some_tokens(72);
  std::vector<std::vector<float>> logits;
  for (const auto& [first, count] : {std::pair{0, 64}, std::pair{64, 1}, std::pair{65, 7}}) {
    logits.push_back(runner.run(
        std::span(tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count)), first));
  }
  return logits;
}

/// The tokens of one text, through captured rounds.
std::vector<int32_t> decode(SpeculativeDecoder& decoder, const DecodeSettings& settings,
                            int count) {
  const std::vector<int32_t> prompt = some_tokens(24);
  decoder.start(prompt, settings);
  std::vector<int32_t> tokens;
  while (static_cast<int>(tokens.size()) < count && decoder.remaining_positions() > 0) {
    const RoundResult& round = decoder.round(count - static_cast<int>(tokens.size()));
    tokens.insert(tokens.end(), round.tokens.begin(), round.tokens.end());
  }
  return tokens;
}

TEST_CASE("Over GPUs, a layer split gives one GPU's bits") {
  for (const int ranks : rank_counts()) {
    const ModelConfig config = ModelConfig::from_folder(kMain);
    const auto backend = gpu(0);
    const auto alone = single(kMain, *backend);
    const auto theirs = logits_of(*alone);
    SpeculativeDecoder expected(*alone, nullptr, 0);
    for (const AllReduce way : {AllReduce::kNccl, AllReduce::kAuto}) {
      Split split(config, layers(config, ranks), way);
      CAPTURE(ranks, split.sums);
      const auto ours = logits_of(*split.model);
      for (size_t i = 0; i < ours.size(); ++i) CHECK(same_bits(ours[i], theirs[i]));
      SpeculativeDecoder decoder(*split.model, nullptr, 0);
      CHECK(decode(decoder, {}, 200) == decode(expected, {}, 200));
    }
  }
}

TEST_CASE("Over GPUs, a tensor split is near one GPU, repeats itself, and all ways give its bits") {
  for (const int ranks : rank_counts()) {
    const ModelConfig config = ModelConfig::from_folder(kMain);
    const auto backend = gpu(0);
    const auto theirs = logits_of(*single(kMain, *backend));
    std::vector<std::vector<float>> first;
    for (const AllReduce way : {AllReduce::kNccl, AllReduce::kPeer, AllReduce::kAuto}) {
      Split split(config, tensor_placement(config, ranks), way);
      const auto ours = logits_of(*split.model);
      CAPTURE(ranks, split.sums);
      if (first.empty()) first = ours;
      const auto again = logits_of(*split.model);
      // Another order of sums flips the rounding of activations to bfloat16 here and there, twice a
      // layer; the flips add up as random steps.
      const double tolerance = 0x1p-8 * std::sqrt(2.0 * config.num_layers);
      for (size_t i = 0; i < ours.size(); ++i) {
        double largest = 0, scale = 0;
        for (size_t k = 0; k < ours[i].size(); ++k) {
          largest = std::max(largest, std::abs(static_cast<double>(ours[i][k]) - theirs[i][k]));
          scale = std::max(scale, std::abs(static_cast<double>(theirs[i][k])));
        }
        CAPTURE(i, largest, scale);
        CHECK(largest <= tolerance * scale);
        CHECK(same_bits(ours[i], again[i]));
        CHECK(same_bits(ours[i], first[i]));
      }
    }
  }
}

TEST_CASE("Over GPUs, a row has the same bits whatever rows travel with it") {
  for (const int ranks : rank_counts()) {
    const ModelConfig config = ModelConfig::from_folder(kMain);
    Split split(config, tensor_placement(config, ranks), AllReduce::kAuto);
    test::ModelRunner runner(*split.model);
    const std::vector<int32_t> tokens = some_tokens(16);
    const std::vector<float> together = runner.run(tokens, 0);
    const auto vocab = static_cast<size_t>(config.vocab_size);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto alone = runner.run(std::span(tokens).subspan(i, 1), static_cast<int>(i));
      CHECK(std::memcmp(alone.data(), together.data() + i * vocab, vocab * sizeof(float)) == 0);
    }
  }
}

constexpr int kShareTokens = 200;

std::vector<int32_t> largest_of_rows(const std::vector<float>& logits, int vocab) {
  const auto columns = static_cast<size_t>(vocab);
  std::vector<int32_t> ids;
  for (size_t at = 0; at < logits.size(); at += columns) {
    ids.push_back(test::argmax(std::span(logits).subspan(at, columns)));
  }
  return ids;
}

TEST_CASE("Over GPUs, shares of the vocabulary choose what the whole rows do") {
  const auto repeating = [] { return std::make_unique<test::RepeatingSource>(kMain); };
  for (const int ranks : rank_counts()) {
    const ModelConfig config = ModelConfig::from_folder(kMain);
    const Placement placement = tensor_placement(config, ranks);
    const std::vector<int32_t> tokens = some_tokens(40);
    for (const AllReduce way : {AllReduce::kNccl, AllReduce::kAuto}) {
      Split split(config, placement, way), tied(config, placement, way, repeating);
      CAPTURE(ranks, split.sums);
      for (ShardedModel* model : {split.model.get(), tied.model.get()}) {
        test::ModelRunner runner(*model);
        for (const size_t count : {1, 2, 5, 16, 40}) {
          const auto part = std::span(tokens).first(count);
          const auto expected = largest_of_rows(runner.run(part, 0), config.vocab_size);
          CHECK(runner.run_argmax(part, 0) == expected);
        }
      }
      SpeculativeDecoder decoder(*split.model, nullptr, 0);
      DecodeSettings whole_rows;
      whole_rows.logprobs = 0;
      CHECK(decode(decoder, {}, kShareTokens) == decode(decoder, whole_rows, kShareTokens));
    }
  }
}

constexpr int kPairDrafts = 5, kPairTokens = 300;

/// A decoder with the bundled draft on a device.
std::unique_ptr<SpeculativeDecoder> pair_of(LanguageModel& main, Transformer& draft) {
  auto drafter = RemoteDrafter::around(
      std::make_unique<ModelDrafter>(draft, main.vocab_size(), std::vector<uint8_t>{}),
      draft.backend(), main, kPairDrafts);
  return std::make_unique<SpeculativeDecoder>(main, std::move(drafter), kPairDrafts);
}

DecodeSettings sampling(DecodeRule::Kind kind) {
  DecodeSettings settings;
  settings.num_speculative_tokens = 3;
  settings.rule.kind = kind;
  settings.rule.transform.temperature = 0.8f;
  settings.rule.transform.presence_penalty = 0.2f;
  settings.seed = 7;
  return settings;
}

/// Greedy text is that without a draft at every K; every rule's texts are those of the draft beside
/// the main model's head.
void check_pair(LanguageModel& main, Transformer& draft, Transformer& draft_beside_head) {
  SpeculativeDecoder plain(main, nullptr, 0);
  const auto pair = pair_of(main, draft), beside = pair_of(main, draft_beside_head);
  DecodeSettings settings;
  const std::vector<int32_t> expected = decode(plain, settings, kPairTokens);
  for (const int drafts : {1, 3, kPairDrafts}) {
    settings.num_speculative_tokens = drafts;
    CHECK(decode(*pair, settings, kPairTokens) == expected);
  }
  using Kind = DecodeRule::Kind;
  for (const Kind kind : {Kind::kRejection, Kind::kBlock, Kind::kCoupled}) {
    CAPTURE(static_cast<int>(kind));
    const auto text = decode(*pair, sampling(kind), kPairTokens);
    CHECK(text == decode(*pair, sampling(kind), kPairTokens));
    CHECK(text == decode(*beside, sampling(kind), kPairTokens));
  }
}

TEST_CASE("Over GPUs, the draft may be on any of them, and texts repeat") {
  for (const int ranks : rank_counts()) {
    const ModelConfig config = ModelConfig::from_folder(kMain);
    for (const Placement& placement : {layers(config, ranks), tensor_placement(config, ranks)}) {
      Split split(config, placement, AllReduce::kAuto);
      const auto leader = static_cast<size_t>(placement.leader());
      const auto beside = single(kDraft, *split.backends[leader]);
      for (size_t device = 0; device < split.backends.size(); ++device) {
        CAPTURE(ranks, static_cast<int>(placement.split), split.sums, device);
        if (device == leader) {
          check_pair(*split.model, *beside, *beside);
        } else {
          check_pair(*split.model, *single(kDraft, *split.backends[device]), *beside);
        }
      }
    }
  }
}

TEST_CASE("Over GPUs, the draft may have one of its own") {
  if (rank_counts().empty()) return;
  const auto first = gpu(0), second = gpu(1);
  const auto main = single(kMain, *first), draft = single(kDraft, *second);
  check_pair(*main, *draft, *single(kDraft, *first));
}

/// The first bytes of what lies on a device.
std::vector<std::byte> bytes_of(Backend& backend, const TensorView& view, int64_t elements,
                                Stream& stream) {
  std::vector<std::byte> bytes(static_cast<size_t>(elements) * sizeof(float));
  backend.copy_to_host(bytes.data(), view.data(), bytes.size(), stream);
  stream.synchronize();
  return bytes;
}

TEST_CASE("Over GPUs, ranks never disagree on sampled rounds") {
  constexpr int kRounds = 10'000, kDrafts = 4, kRowFieldsRead = 4;
  for (const int ranks : rank_counts()) {
    const ModelConfig config = ModelConfig::from_folder(kMain);
    for (const Placement& placement : {layers(config, ranks), tensor_placement(config, ranks)}) {
      Split split(config, placement, AllReduce::kAuto);
      // The draft sits on each device in turn.
      std::vector<std::unique_ptr<Transformer>> drafts;
      std::vector<std::unique_ptr<SpeculativeDecoder>> decoders;
      std::vector<std::unique_ptr<Stream>> streams;
      for (const auto& backend : split.backends) {
        drafts.push_back(single(kDraft, *backend));
        decoders.push_back(pair_of(*split.model, *drafts.back()));
        streams.push_back(backend->make_stream());
      }
      DecodeSettings settings;
      settings.num_speculative_tokens = kDrafts;
      settings.rule.kind = DecodeRule::Kind::kBlock;
      settings.launch_ahead = false;  // the buffers stay as the round left them
      int rounds = 0, disagreements = 0, accepted = 0;
      for (uint64_t seed = 1; rounds < kRounds; ++seed) {
        settings.seed = seed;
        SpeculativeDecoder& decoder = *decoders[seed % decoders.size()];
        decoder.start(some_tokens(24), settings);
        while (rounds < kRounds && decoder.remaining_positions() > kDrafts + 1) {
          const RoundResult& round = decoder.round(kDrafts + 1);
          ++rounds;
          accepted += round.num_accepted;
          const int64_t rows = round.num_drafts + 1;
          std::vector<std::byte> expected;
          for (int rank = 0; rank < ranks; ++rank) {
            const auto at = static_cast<size_t>(rank);
            const Transformer& model = split.model->rank(rank);
            auto held = bytes_of(*split.backends[at], model.shared_rows(), kRowFieldsRead * rows,
                                 *streams[at]);
            if (placement.split == tandem::Split::kTensor) {
              const auto hidden = bytes_of(*split.backends[at], model.hidden(),
                                           rows * config.hidden_size, *streams[at]);
              held.insert(held.end(), hidden.begin(), hidden.end());
            }
            if (rank == 0) expected = held;
            disagreements += held != expected;
          }
        }
      }
      CAPTURE(ranks, static_cast<int>(placement.split), split.sums, accepted);
      CHECK(disagreements == 0);
      CHECK(accepted > rounds / 2);
    }
  }
}

/// Says nothing at its nth gather until the test is over.
class StallingCommunicator final : public test::ForwardingCommunicator {
 public:
  StallingCommunicator(std::unique_ptr<Communicator> inner, int gathers,
                       std::shared_future<void> over)
      : ForwardingCommunicator(std::move(inner)), gathers_(gathers), over_(std::move(over)) {}
  void all_gather(TensorView values, TensorView gathered, Stream& stream) override {
    if (gathers_-- == 0) over_.wait();
    ForwardingCommunicator::all_gather(values, gathered, stream);
  }

 private:
  int gathers_;
  const std::shared_future<void> over_;
};

TEST_CASE("Over GPUs, a rank that stalls in a pass is named, and the pass ends within 15 s") {
  using namespace std::chrono_literals;
  if (rank_counts().empty()) return;
  constexpr int kRanks = 2, kGathersBefore = 5;
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const Placement placement = tensor_placement(config, kRanks);
  const std::vector<int> devices = {0, 1};
  auto communicators = make_nccl_communicators(draw_nccl_id(), kRanks, 0, devices, Traffic::kSums);
  std::promise<void> over;
  communicators[1] = std::make_unique<StallingCommunicator>(
      std::move(communicators[1]), kGathersBefore, over.get_future().share());
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<ShardedModel::Rank> ranks;
  for (size_t i = 0; i < kRanks; ++i) {
    backends.push_back(gpu(static_cast<int>(i)));
    ranks.push_back({placement.shards[i], backends[i].get(), std::move(communicators[i])});
  }
  const auto begin = std::chrono::steady_clock::now();
  {
    ShardedModel model(
        config, std::move(ranks), [] { return open_weights(kMain); }, options());
    test::ModelRunner runner(model);
    CHECK_THROWS_WITH(runner.run(some_tokens(1), 0),
                      ContainsText("rank 1 (cuda:1) did not finish a pass within 10.0 s"));
    CHECK(std::chrono::steady_clock::now() - begin < 15s);
    CHECK_THROWS_WITH(model.check(), ContainsText("rank 1 (cuda:1)"));
    over.set_value();
  }
  CHECK(std::chrono::steady_clock::now() - begin < 30s);
}

/// What a rank does when it waits for another.
enum class Exchange { kAdd, kAddNorm, kJoinArgmax, kBroadcast };

TEST_CASE("Over GPUs, kernels that wait for a rank's memory give up when told to") {
  using namespace std::chrono_literals;
  if (rank_counts().empty()) return;
  constexpr int64_t kWords = 4096, kParts = NormedRows::parts(kWords);
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<DeviceBuffer> memory;
  std::vector<PeerMember> members;
  const int64_t bytes = peer_memory_bytes(DeviceKind::kCuda, 2, kWords);
  for (int i = 0; i < 2; ++i) {
    backends.push_back(gpu(i));
    memory.emplace_back(backends.back()->memory(), static_cast<size_t>(bytes), "exchange");
    members.push_back({backends.back().get(), TensorView(memory.back().data(), DType::kU8, {bytes},
                                                         backends.back()->device())});
  }
  Backend& backend = *backends[0];
  const auto floats = static_cast<size_t>(4 * kWords + kParts);
  DeviceBuffer values(backend.memory(), floats * sizeof(float), "values");
  const auto view = [&](int64_t first, DType dtype, Shape shape) {
    return TensorView(static_cast<float*>(values.data()) + first, dtype, shape, backend.device());
  };
  const TensorView terms = view(0, DType::kF32, {1, kWords});
  const TensorView out = view(kWords, DType::kF32, {1, kWords});
  const TensorView weight = view(2 * kWords, DType::kF32, {kWords});
  const NormedRows normed{view(3 * kWords, backend.activation_dtype(), {1, kWords}),
                          view(4 * kWords, DType::kF32, {1, kParts}), 1e-5f};
  const TensorView choices = view(0, DType::kI32, {4, 2}), words = view(0, DType::kI32, {8});
  const auto stream = backend.make_stream();
  const auto event = backend.make_event();
  backend.fill_zero(values.data(), floats * sizeof(float), *stream);
  // What ids, slots and sequences are taken from may hold anything, but is used after an abort.
  constexpr size_t kIds = 4;
  DeviceBuffer ids(backend.memory(), kIds * sizeof(int32_t), "ids");
  std::array<int32_t, 8> anything;
  anything.fill(-7);
  for (const Exchange exchange :
       {Exchange::kAdd, Exchange::kAddNorm, Exchange::kJoinArgmax, Exchange::kBroadcast}) {
    CAPTURE(static_cast<int>(exchange));
    const auto peers = join_peers(members, kWords);
    if (peers.empty()) {
      WARN("these GPUs do not reach each other's memory: this test was skipped");
      return;
    }
    switch (exchange) {  // and rank 1 never comes
      case Exchange::kAdd:
        peers[0]->add(terms, out, *stream);
        break;
      case Exchange::kAddNorm:
        peers[0]->add_norm(terms, out, weight, normed, *stream);
        break;
      case Exchange::kJoinArgmax:
        backend.copy_to_device(ids.data(), anything.data(), ids.bytes(), *stream);
        peers[0]->join_argmax(choices, static_cast<int32_t*>(ids.data()), *stream);
        break;
      case Exchange::kBroadcast:
        backend.copy_to_device(words.data(), anything.data(), words.bytes(), *stream);
        peers[0]->broadcast(words, 0, *stream);
        break;
    }
    stream->record(*event);
    std::this_thread::sleep_for(300ms);
    CHECK_FALSE(event->done());
    peers[1]->abort();
    const auto begin = std::chrono::steady_clock::now();
    stream->synchronize();
    CHECK(std::chrono::steady_clock::now() - begin < 1s);
  }
  std::array<int32_t, kIds> chosen;
  backend.copy_to_host(chosen.data(), ids.data(), ids.bytes(), *stream);
  std::array<int32_t, 8> received;
  backend.copy_to_host(received.data(), words.data(), words.bytes(), *stream);
  stream->synchronize();
  CHECK(std::count(chosen.begin(), chosen.end(), 0) == 4);
  CHECK(std::count(received.begin(), received.end(), 0) == 8);
}

TEST_CASE("Over GPUs, an aborted group fails at once and lets go") {
  for (const int ranks : rank_counts()) {
    const ModelConfig config = ModelConfig::from_folder(kMain);
    for (const Placement& placement : {layers(config, ranks), tensor_placement(config, ranks)}) {
      {
        Split split(config, placement, AllReduce::kAuto);
        SpeculativeDecoder decoder(*split.model, nullptr, 0);
        CHECK(decode(decoder, {}, 20).size() == 20);
        split.model->abort("the test wants it");
        CHECK_THROWS_WITH(decode(decoder, {}, 20), ContainsText("the test wants it"));
      }
      // No kernel was left with memory that is gone.
      for (int i = 0; i < ranks; ++i) CHECK_NOTHROW(gpu(i)->make_stream()->synchronize());
    }
  }
}

}  // namespace
}  // namespace tandem
