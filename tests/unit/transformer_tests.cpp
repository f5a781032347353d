#include "model/transformer.h"

#include <cstring>

#include "backend/backend.h"
#include "model/model_loader.h"
#include "model/token_scores.h"
#include "support/catch.h"
#include "support/model_runner.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using test::ModelRunner;

const std::filesystem::path kSource = TANDEM_SOURCE_DIR;
const std::filesystem::path kDraft = kSource / "models/demo/draft";
const std::filesystem::path kMain = kSource / "models/demo/main";

std::unique_ptr<Backend> cpu(const std::string& device = "cpu") {
  return make_backend(parse_device(device), 2);
}

LoadOptions limits(int max_positions, int max_rows, int max_sequences = 1) {
  LoadOptions options;
  options.max_positions = max_positions;
  options.max_rows = max_rows;
  options.max_sequences = max_sequences;
  return options;
}

/// Token ids that look like text to no one but exercise many rows of the embedding.
std::vector<int32_t> some_tokens(int count, int vocab, int start = 17) {
  constexpr int kStep = 397;
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((start + i * kStep) % vocab);
  return tokens;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

TEST_CASE("A row's logits have the same bits whatever rows travel with it") {
  constexpr int kTokens = 80;
  const std::unique_ptr<Backend> backend = cpu();
  const auto model = load_model(GENERATE(kMain, kDraft), *backend, limits(128, kTokens));
  ModelRunner runner(*model);
  const std::vector<int32_t> tokens = some_tokens(kTokens, model->vocab_size());
  const std::vector<float> alone = [&] {
    std::vector<float> all;
    for (int i = 0; i < kTokens; ++i) {
      const std::vector<float> row =
          runner.run(std::span(tokens).subspan(static_cast<size_t>(i), 1), i);
      all.insert(all.end(), row.begin(), row.end());
    }
    return all;
  }();
  for (const int width : {2, 3, 5, 8, 16}) {
    model->truncate(0, 0, runner.stream());
    for (int first = 0; first < kTokens; first += width) {
      const int count = std::min(width, kTokens - first);
      const std::vector<float> logits = runner.run(
          std::span(tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count)), first);
      const size_t vocab = static_cast<size_t>(model->vocab_size());
      CAPTURE(width, first);
      REQUIRE(same_bits(
          logits, std::span(alone).subspan(static_cast<size_t>(first) * vocab, logits.size())));
    }
  }
}

TEST_CASE("A pass may ask for the logits of its last rows, or of none") {
  const std::unique_ptr<Backend> backend = cpu();
  const auto model = load_model(kDraft, *backend, limits(64, 8));
  ModelRunner runner(*model);
  const std::vector<int32_t> tokens = some_tokens(8, model->vocab_size());
  const std::vector<float> all = runner.run(tokens, 0);
  const std::vector<float> last = runner.run(tokens, 0, 0, 6);
  const auto vocab = static_cast<size_t>(model->vocab_size());
  CHECK(same_bits(last, std::span(all).last(2 * vocab)));
  CHECK(runner.run(tokens, 0, 0, 8).empty());
}

TEST_CASE("Going back to a shorter length leaves no trace") {
  const std::unique_ptr<Backend> backend = cpu();
  const auto model = load_model(kDraft, *backend, limits(128, 64));
  ModelRunner runner(*model);
  const std::vector<int32_t> tokens = some_tokens(50, model->vocab_size());
  const std::vector<int32_t> other = some_tokens(10, model->vocab_size(), 99);
  const std::vector<float> expected = runner.run(tokens, 0);
  runner.run(std::span(tokens).first(40), 0);
  runner.run(other, 40);  // drafts that are then rejected
  const std::vector<float> again = runner.run(std::span(tokens).last(10), 40);
  CHECK(same_bits(again, std::span(expected).last(again.size())));
}

TEST_CASE("A forked sequence goes on as the original would") {
  const std::unique_ptr<Backend> backend = cpu();
  const auto model = load_model(kDraft, *backend, limits(128, 64, 3));
  ModelRunner runner(*model);
  const std::vector<int32_t> prompt = some_tokens(GENERATE(64, 45, 7), model->vocab_size());
  const int length = static_cast<int>(prompt.size());
  const std::vector<int32_t> a = some_tokens(20, model->vocab_size(), 5),
                             b = some_tokens(20, model->vocab_size(), 6);
  runner.run(prompt, 0, 0);
  const std::vector<float> expected_a = runner.run(a, length, 0);
  const std::vector<float> expected_b = runner.run(b, length, 0);

  model->truncate(0, length, runner.stream());
  model->fork(0, 1, length, runner.stream());
  model->fork(1, 2, length, runner.stream());
  const std::vector<float> in_1 = runner.run(a, length, 1);
  const std::vector<float> in_2 = runner.run(b, length, 2);
  const std::vector<float> in_0 = runner.run(b, length, 0);
  CHECK(same_bits(in_1, expected_a));
  CHECK(same_bits(in_2, expected_b));
  CHECK(same_bits(in_0, expected_b));
  CHECK(same_bits(runner.run(a, length, 1), expected_a));
}

TEST_CASE("Sequences travel together in one pass") {
  const std::unique_ptr<Backend> backend = cpu();
  const auto model = load_model(kDraft, *backend, limits(64, 16, 2));
  ModelRunner runner(*model);
  const std::vector<int32_t> a = some_tokens(9, model->vocab_size(), 5),
                             b = some_tokens(9, model->vocab_size(), 6);
  const std::vector<float> alone_a = runner.run(a, 0, 0), alone_b = runner.run(b, 0, 1);
  runner.run(std::span(a).first(8), 0, 0);
  runner.run(std::span(b).first(8), 0, 1);
  const std::vector<float> both = runner.run_rows({a[8], b[8]}, {8, 8}, {0, 1}, 0);
  const auto vocab = static_cast<size_t>(model->vocab_size());
  CHECK(same_bits(std::span(both).first(vocab), std::span(alone_a).last(vocab)));
  CHECK(same_bits(std::span(both).last(vocab), std::span(alone_b).last(vocab)));
}

TEST_CASE("Planned bytes are allocated bytes") {
  const std::unique_ptr<Backend> backend = cpu();
  const ModelConfig config = ModelConfig::from_folder(kMain);
  const ModelShard shard = ModelShard::whole(config);
  const std::unique_ptr<WeightSource> source = open_weights(kMain);
  Transformer::Options options;
  options.limits = {
      .max_positions = 200, .max_rows = 24, .max_logits_rows = 9, .max_sequences = 3, .pages = 8};
  uint64_t last_done = 0, last_total = 0;
  options.progress = [&](uint64_t done, uint64_t total) {
    CHECK(done > last_done);
    last_done = done;
    last_total = total;
  };
  const uint64_t before = backend->memory().allocated_bytes();
  const Transformer model(config, shard, *source, *backend, options);
  const uint64_t weights =
      weights_bytes(config, shard, formats_as_stored(*source), DeviceKind::kCpu);
  const uint64_t kv = kv_bytes(config, shard, options.limits, DeviceKind::kCpu);
  const uint64_t activations =
      activation_bytes(config, shard, formats_as_stored(*source), options.limits, DeviceKind::kCpu);
  const uint64_t logits = logits_bytes(config, shard, options.limits);
  CHECK(model.weights_bytes() == weights);
  CHECK(model.kv_bytes() == kv);
  CHECK(model.activation_bytes() == activations);
  CHECK(model.logits_bytes() == logits);
  CHECK(backend->memory().allocated_bytes() - before == weights + kv + activations + logits);
  CHECK(last_done == weights);  // nothing of the arena is left over
  CHECK(last_total == weights);
  // 8 pages of 32 tokens, 7 layers of keys and values, 4 heads of 64 floats; the page table of 3 *
  // 7 entries
  CHECK(kv == 8ull * 32 * 7 * 2 * 4 * 64 * 4 + 256);
  CHECK(logits == 9ull * 6144 * 4);
}

TEST_CASE("A model that does not fit says so and leaves nothing behind") {
  const std::unique_ptr<Backend> backend = cpu("cpu:0=4MiB");
  CHECK_THROWS_AS(load_model(kMain, *backend, limits(64, 8)), MemoryError);
  CHECK(backend->memory().allocated_bytes() == 0);
}

TEST_CASE("Passes and limits beyond the plan are refused") {
  const std::unique_ptr<Backend> backend = cpu();
  CHECK_THROWS_AS(load_model(kDraft, *backend, limits(2049, 8)), UsageError);
  CHECK_THROWS_AS(load_model(kDraft, *backend, limits(-1, -1)), ShapeError);
  LoadOptions options = limits(64, 8);
  options.max_logits_rows = 4;
  const auto model = load_model(kDraft, *backend, options);
  CHECK(model->max_positions() == 64);
  CHECK(model->max_rows() == 8);
  CHECK_THROWS_AS(model->check_pass(9, 9), ShapeError);
  CHECK_THROWS_AS(model->check_pass(0, 0), ShapeError);
  CHECK_THROWS_AS(model->check_pass(8, 3), ShapeError);
  CHECK_THROWS_AS(model->check_pass(8, 9), ShapeError);
  CHECK_THROWS_AS(model->check_pass(8, -1), ShapeError);
  CHECK_NOTHROW(model->check_pass(8, 4));
  const std::unique_ptr<Stream> stream = backend->make_stream();
  CHECK_THROWS_AS(model->reserve(0, 65, *stream), MemoryError);
  CHECK_THROWS_AS(model->reserve(1, 1, *stream), ShapeError);
}

TEST_CASE("Scoring refuses what cannot be scored") {
  const std::unique_ptr<Backend> backend = cpu();
  const auto model = load_model(kDraft, *backend, limits(16, 8));
  CHECK_THROWS_AS(score_tokens(*model, {}, 1), UsageError);
  CHECK_THROWS_AS(score_tokens(*model, some_tokens(17, model->vocab_size()), 1), UsageError);
  CHECK_THROWS_AS(score_tokens(*model, std::vector<int32_t>{model->vocab_size()}, 1), UsageError);
  CHECK_THROWS_AS(score_tokens(*model, std::vector<int32_t>{-1}, 1), UsageError);
  CHECK_THROWS_AS(score_tokens(*model, std::vector<int32_t>{1}, -1), UsageError);
  const TokenScores scores = score_tokens(*model, some_tokens(16, model->vocab_size()), 3);
  CHECK(scores.top_ids.size() == 16);
  CHECK(scores.top_ids[15].size() == 3);
  CHECK(scores.top_logits[15][0] >= scores.top_logits[15][1]);
  CHECK(scores.logsumexp[15] > scores.top_logits[15][0]);
}

}  // namespace
}  // namespace tandem
