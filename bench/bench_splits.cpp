// bench_splits: plain decoding of a model's shape on one GPU and split over several, and a prompt's
// widest pass. Each GPU takes a turn alone: they differ by a percent or two.
//
//   bench_splits FOLDER [NUMBER OF GPUS] [OUT.jsonl]
//
// Only config.json (of a Llama without biases) is read from the folder; weights are random, since
// time does not depend on them. Each way decodes the same prompt greedily; the time of a token is
// the median of the rounds, that of a prompt the least of several.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "comm/nccl_communicator.h"
#include "model/sharded_model.h"
#include "plan/placement.h"
#include "spec/speculative_decoder.h"
#include "tandem/error.h"

namespace {

using namespace tandem;

constexpr int kPromptTokens = 256, kTokens = 240, kWarmUp = 16;
constexpr int kContext = 3072, kMaxRows = 2048, kPrompts = 4;

/// Every tensor of a config, all cut from one block of small random bfloat16 numbers.
class RandomSource final : public WeightSource {
 public:
  RandomSource(const ModelConfig& config, const std::vector<uint16_t>& numbers)
      : config_(config), numbers_(numbers) {}
  std::string name() const override { return "random weights"; }
  bool has(std::string_view tensor) const override {
    const std::string beyond = ".layers." + std::to_string(config_.num_layers) + ".";
    return !tensor.ends_with("bias") && !is(tensor, "q_norm") && !is(tensor, "k_norm") &&
           !is(tensor, beyond) && !(config_.tie_word_embeddings && is(tensor, "lm_head"));
  }
  TensorInfo info(std::string_view tensor) const override {
    return {DType::kBF16, shape_of(tensor), name()};
  }
  HostMatrix tensor(std::string_view tensor) override {
    const Shape shape = shape_of(tensor);
    HostMatrix matrix;
    matrix.dtype = DType::kBF16;
    matrix.data = numbers_.data();
    matrix.rows = shape.rank() == 1 ? 1 : shape[0];
    matrix.cols = shape.rank() == 1 ? shape[0] : shape[1];
    matrix.row_stride = matrix.cols;
    return matrix;
  }
  void done_with(std::string_view) override {}

  static int64_t largest(const ModelConfig& config) {
    return std::max<int64_t>(config.vocab_size, config.intermediate_size) * config.hidden_size;
  }

 private:
  static bool is(std::string_view tensor, std::string_view part) {
    return tensor.find(part) != std::string_view::npos;
  }
  Shape shape_of(std::string_view tensor) const {
    const int64_t hidden = config_.hidden_size, mlp = config_.intermediate_size;
    const int64_t query = int64_t{config_.num_heads} * config_.head_dim;
    const int64_t kv = int64_t{config_.num_kv_heads} * config_.head_dim;
    if (is(tensor, "norm")) return {hidden};
    if (is(tensor, "q_proj")) return {query, hidden};
    if (is(tensor, "k_proj") || is(tensor, "v_proj")) return {kv, hidden};
    if (is(tensor, "o_proj")) return {hidden, query};
    if (is(tensor, "gate_proj") || is(tensor, "up_proj")) return {mlp, hidden};
    if (is(tensor, "down_proj")) return {hidden, mlp};
    return {config_.vocab_size, hidden};
  }

  const ModelConfig& config_;
  const std::vector<uint16_t>& numbers_;
};

std::vector<uint16_t> random_numbers(int64_t count) {
  std::vector<uint16_t> numbers(static_cast<size_t>(count));
  std::mt19937 random(1);
  constexpr uint32_t kSignAndFraction = 0x807f, kExponent = 0x3c00;  // 1/128 to 1/64
  for (uint16_t& number : numbers) {
    number = static_cast<uint16_t>((random() & kSignAndFraction) | kExponent);
  }
  return numbers;
}

struct Result {
  double milliseconds = 0;          ///< of a token
  double prefill_milliseconds = 0;  ///< of kMaxRows tokens in one pass
  std::vector<int32_t> tokens;
};

std::vector<int32_t> prompt_of(int tokens, int vocab_size) {
  std::vector<int32_t> prompt;
  constexpr int kStep = 397;
  for (int i = 0; i < tokens; ++i) prompt.push_back((17 + i * kStep) % vocab_size);
  return prompt;
}

double prefill(SpeculativeDecoder& decoder, int vocab_size) {
  const std::vector<int32_t> prompt = prompt_of(kMaxRows + 1, vocab_size);
  double least = 0;
  for (int i = 0; i < kPrompts; ++i) {
    decoder.start(prompt, DecodeSettings{});
    decoder.round(1);
    const double milliseconds = 1e3 * decoder.prefill_seconds();
    least = i == 0 ? milliseconds : std::min(least, milliseconds);
  }
  return least;
}

Result decode(LanguageModel& model) {
  SpeculativeDecoder decoder(model, nullptr, 0);
  Result result;
  result.prefill_milliseconds = prefill(decoder, model.vocab_size());
  decoder.start(prompt_of(kPromptTokens, model.vocab_size()), DecodeSettings{});
  std::vector<double> times;
  for (int i = 0; i < kTokens; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const RoundResult& round = decoder.round(kTokens - i);
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
            .count());
    result.tokens.insert(result.tokens.end(), round.tokens.begin(), round.tokens.end());
  }
  times.erase(times.begin(), times.begin() + kWarmUp);
  std::nth_element(times.begin(), times.begin() + static_cast<ptrdiff_t>(times.size() / 2),
                   times.end());
  result.milliseconds = times[times.size() / 2];
  return result;
}

struct Bench {
  ModelConfig config;
  std::vector<uint16_t> numbers;
  std::FILE* out = nullptr;
  Transformer::Options options;
  Result first;  ///< of cuda:0 alone

  Result alone(int gpu) {
    const std::string device = "cuda:" + std::to_string(gpu);
    const auto backend = make_backend(parse_device(device));
    RandomSource source(config, numbers);
    Transformer model(config, ModelShard::whole(config), source, *backend, options);
    const Result result = decode(model);
    if (gpu == 0) first = result;
    report(device.c_str(), 1, result, first, "");
    return result;
  }

  /// Twice, to see that the text repeats.
  void split(const char* name, const Placement& placement, AllReduce all_reduce,
             const Result& alone) {
    std::vector<std::unique_ptr<Backend>> backends;
    std::vector<int> devices;
    for (int i = 0; i < placement.ranks(); ++i) {
      backends.push_back(make_backend(parse_device("cuda:" + std::to_string(i))));
      devices.push_back(i);
    }
    auto communicators = make_nccl_communicators(draw_nccl_id(), placement.ranks(), 0, devices,
                                                 traffic_of(placement.split));
    std::vector<ShardedModel::Rank> ranks;
    for (size_t i = 0; i < backends.size(); ++i) {
      ranks.push_back({placement.shards[i], backends[i].get(), std::move(communicators[i])});
    }
    ShardedModel model(
        config, std::move(ranks),
        [this] { return std::make_unique<RandomSource>(config, numbers); }, options);
    std::string note = model.choose_all_reduce(all_reduce);
    const Result result = decode(model), again = decode(model);
    note += std::string(again.tokens == result.tokens ? "; repeats" : "; DOES NOT REPEAT") +
            (result.tokens == alone.tokens ? ", one GPU's text" : ", another text than one GPU's");
    report(name, placement.ranks(), result, alone, note);
  }

  void report(const char* name, int gpus, const Result& result, const Result& alone,
              const std::string& note) const {
    const double ratio = alone.milliseconds / result.milliseconds;
    const double prefill_ratio = alone.prefill_milliseconds / result.prefill_milliseconds;
    std::printf("%-22s %d GPU  %7.3f ms a token  %6.3f x  %7.2f ms %d tokens  %6.3f x   %s\n", name,
                gpus, result.milliseconds, ratio, result.prefill_milliseconds, kMaxRows,
                prefill_ratio, note.c_str());
    std::fflush(stdout);
    if (out == nullptr) return;
    std::fprintf(out,
                 "{\"way\": \"%s\", \"gpus\": %d, \"ms_per_token\": %.4f, \"ratio\": %.4f, "
                 "\"prefill_ms\": %.3f, \"prefill_ratio\": %.4f}\n",
                 name, gpus, result.milliseconds, ratio, result.prefill_milliseconds,
                 prefill_ratio);
  }
};

void run(const char* folder, int gpus, const char* path) {
  Bench bench;
  bench.config = ModelConfig::from_folder(folder);
  bench.numbers = random_numbers(RandomSource::largest(bench.config));
  bench.out = path == nullptr ? nullptr : std::fopen(path, "w");
  bench.options.limits = {
      .max_positions = kContext, .max_rows = kMaxRows, .max_logits_rows = RankSum::kGatheredRows};
  const Result alone = bench.alone(0);
  for (int gpu = 1; gpu < gpus; ++gpu) bench.alone(gpu);
  const Placement tensor = tensor_placement(bench.config, gpus);
  const Placement layer =
      layer_placement(bench.config, share_evenly(bench.config.num_layers, gpus, 1));
  bench.split("layer split, auto", layer, AllReduce::kAuto, alone);
  bench.split("layer split, nccl", layer, AllReduce::kNccl, alone);
  bench.split("tensor split, auto", tensor, AllReduce::kAuto, alone);
  bench.split("tensor split, nccl", tensor, AllReduce::kNccl, alone);
  if (bench.out != nullptr) std::fclose(bench.out);
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kDefaultGpus = 2;
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_splits FOLDER [NUMBER OF GPUS] [OUT.jsonl]\n");
    return 2;
  }
  try {
    run(argv[1], argc > 2 ? std::atoi(argv[2]) : kDefaultGpus, argc > 3 ? argv[3] : nullptr);
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "bench_splits: %s\n", error.what());
    return 1;
  }
}
