#include "decode_measure.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>

#include "core/memory.h"

namespace tandem::bench {
namespace {

constexpr int kRepetitions = 7, kReplays = 4;
/// `round` gives as many tokens as its drafts allow.
constexpr int kNoLimit = 1 << 20;

/// Rows behind a context of one sequence, in device memory.
class PassRows {
 public:
  PassRows(LanguageModel& model, int widest, int context, Stream& stream)
      : arena_(model.backend().memory(), ArenaSize().add(DType::kI32, {3 * widest}).bytes(),
               "rows of the benchmark"),
        fields_(arena_.take(DType::kI32, {3 * widest})),
        widest_(widest) {
    std::vector<int32_t> host(static_cast<size_t>(3 * widest), 0);
    std::iota(host.begin() + widest, host.begin() + 2 * widest, context);
    model.backend().copy_to_device(fields_.data(), host.data(), host.size() * sizeof(int32_t),
                                   stream);
    stream.synchronize();
  }

  Rows first(int count) const {
    const TensorView positions = fields_.rows(widest_, count);
    return {count, fields_.rows(0, count), positions, positions, fields_.rows(2 * widest_, count)};
  }

 private:
  Arena arena_;
  TensorView fields_;  ///< tokens, positions, sequences
  int widest_;
};

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::vector<double> time_passes(LanguageModel& model, int widest, int context) {
  Backend& backend = model.backend();
  const auto stream = backend.make_stream();
  const auto begun = backend.make_event(), ended = backend.make_event();
  const int fitting = std::min(context, model.max_positions() - widest);
  model.truncate(0, 0, *stream);
  model.reserve(0, fitting + widest, *stream);
  const PassRows rows(model, widest, fitting, *stream);
  const auto pass = [&](int width) {
    model.forward(rows.first(width), std::max(0, width - model.max_logits_rows()), *stream);
  };
  pass(widest);  // work memory is taken before any capture
  std::vector<std::unique_ptr<Graph>> graphs(static_cast<size_t>(widest) + 1);
  std::vector<std::vector<double>> samples(graphs.size());
  for (int repetition = -1; repetition < kRepetitions; ++repetition) {  // -1 captures, warms up
    for (int width = 1; width <= widest; ++width) {
      std::unique_ptr<Graph>& graph = graphs[static_cast<size_t>(width)];
      if (graph == nullptr) {
        graph = model.capture(*stream, [&, width] { pass(width); });
      }
      stream->record(*begun);
      for (int i = 0; i < kReplays; ++i) graph->launch(*stream);
      stream->record(*ended);
      stream->synchronize();
      if (repetition < 0) continue;
      samples[static_cast<size_t>(width)].push_back(ended->seconds_since(*begun) / kReplays);
    }
  }
  std::vector<double> seconds;
  for (const std::vector<double>& of_width : samples) seconds.push_back(median(of_width));
  model.truncate(0, 0, *stream);
  return seconds;
}

void DecodeRun::add(const DecodeRun& other) {
  timed_tokens += other.timed_tokens;
  rounds += other.rounds;
  drafted += other.drafted;
  accepted += other.accepted;
  seconds += other.seconds;
  draft_seconds += other.draft_seconds;
  verify_seconds += other.verify_seconds;
}

double DecodeRun::tokens_per_second() const {
  return seconds > 0 ? static_cast<double>(timed_tokens) / seconds : 0;
}
double DecodeRun::mean_acceptance_length() const {
  return rounds > 0 ? static_cast<double>(timed_tokens) / static_cast<double>(rounds) : 0;
}
double DecodeRun::acceptance_rate() const {
  return drafted > 0 ? static_cast<double>(accepted) / static_cast<double>(drafted) : 0;
}

DecodeRun decode(SpeculativeDecoder& decoder, std::span<const int32_t> prompt,
                 const DecodeSettings& settings, int tokens) {
  using Clock = std::chrono::steady_clock;
  DecodeRun run;
  decoder.start(prompt, settings);
  const auto take = [&]() -> const RoundResult& {
    const RoundResult& result = decoder.round(kNoLimit);
    run.tokens.insert(run.tokens.end(), result.tokens.begin(), result.tokens.end());
    return result;
  };
  take();
  const auto wanted = run.tokens.size() + static_cast<size_t>(tokens);
  const auto begin = Clock::now();
  while (run.tokens.size() < wanted && decoder.remaining_positions() > 0) {
    const RoundResult& result = take();
    ++run.rounds;
    run.timed_tokens += static_cast<int64_t>(result.tokens.size());
    run.drafted += result.num_drafts;
    run.accepted += result.num_accepted;
    run.draft_seconds += result.draft_seconds;
    run.verify_seconds += result.verify_seconds;
  }
  run.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return run;
}

}  // namespace tandem::bench
