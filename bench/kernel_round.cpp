#include <cmath>

#include "backend/round_view.h"
#include "kernel_bench.h"

namespace tandem::bench {
namespace {

/// A round of one sequence over a vocabulary of a current model, with random laws.
class Round {
 public:
  static constexpr int kVocab = 128256, kDrafts = 4, kRows = kDrafts + 1, kPositions = 1024;

  Round(Backend& backend, Stream& stream) : backend_(backend), stream_(stream) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal(0.0f, 2.5f);
    std::vector<float> scores(size_t{kRows} * kVocab);
    for (float& score : scores) score = normal(generator);
    logits = matrix(scores, kRows);
    std::vector<float> laws(scores.size());
    for (size_t r = 0; r < kRows; ++r) {
      double sum = 0;
      for (size_t i = 0; i < kVocab; ++i) sum += std::exp(scores[r * kVocab + i]);
      for (size_t i = 0; i < kVocab; ++i) {
        laws[r * kVocab + i] = static_cast<float>(std::exp(scores[r * kVocab + i]) / sum);
      }
    }
    main_probs = matrix(laws, kRows);
    // Other laws than the main model's: rules walk through all their drafts.
    draft_probs = matrix({laws.begin() + kVocab, laws.end()}, kDrafts);
    view.max_drafts = kDrafts;
    view.vocab = kVocab;
    view.history_stride = kPositions;
    view.length = array<int32_t>({kPositions / 2});
    view.history = array(std::vector<int32_t>(kPositions));
    view.drafts = array<int32_t>({1, 2, 3, 4});
    view.draft_probs = draft_probs.as<float>();
    view.main_probs = main_probs.as<float>();
    view.main_tokens = array(std::vector<int32_t>(kRows));
    view.output = array(std::vector<int32_t>(kRows));
    view.count = array<int32_t>({1});
    view.round_base = array<int32_t>({kPositions / 2});
    view.seeds = array<uint64_t>({1});
    view.streams = array<int32_t>({0});
    view.output_counts = array(std::vector<int32_t>(kVocab));
    view.prompt_seen = array(std::vector<uint8_t>(kVocab));
    const TensorView ints = room(DType::kI32, {4 * kRows});
    rows.tokens = ints.rows(0, kRows);
    rows.positions = ints.rows(kRows, kRows);
    rows.slots = ints.rows(2 * kRows, kRows);
    rows.sequences = ints.rows(3 * kRows, kRows);
    stream.synchronize();
  }

  RoundView view;
  TensorView logits, main_probs, draft_probs;
  Rows rows;

 private:
  TensorView room(DType dtype, Shape shape) {
    buffers_.emplace_back(backend_.memory(), static_cast<size_t>(shape.count()) * size_of(dtype),
                          "benchmark");
    return {buffers_.back().data(), dtype, shape, backend_.device()};
  }
  TensorView matrix(const std::vector<float>& values, int64_t count) {
    const TensorView to = room(DType::kF32, {count, kVocab});
    backend_.copy_to_device(to.data(), values.data(), to.bytes(), stream_);
    stream_.synchronize();
    return to;
  }
  template <typename T>
  T* array(const std::vector<T>& values) {
    const TensorView to = room(DType::kU8, {static_cast<int64_t>(values.size() * sizeof(T))});
    backend_.copy_to_device(to.data(), values.data(), to.bytes(), stream_);
    stream_.synchronize();
    return to.as<T>();
  }

  Backend& backend_;
  Stream& stream_;
  std::vector<DeviceBuffer> buffers_;
};

}  // namespace

/// Every op of the round that is not a forward, many in one graph so that launches do not count, by
/// rows of a draft step (1) and of verification (5).
void measure_round(Backend& backend, Report& report) {
  constexpr int kRepeats = 20;
  const auto stream = backend.make_stream();
  Round round(backend, *stream);
  const auto line = [&](const std::string& op, int rows, double bytes,
                        const std::function<void()>& work) {
    const double seconds = graph_seconds(backend, *stream, [&] {
      for (int i = 0; i < kRepeats; ++i) work();
    });
    report.line("round " + op, rows, seconds / kRepeats, bytes);
  };
  std::vector<std::pair<const char*, SamplingTransform>> transforms(6);
  transforms[0].first = "temperature";
  transforms[0].second.temperature = 0.8f;
  transforms[1] = {"top-k 40", transforms[0].second};
  transforms[1].second.top_k = 40;
  transforms[2] = {"top-p 0.95", transforms[0].second};
  transforms[2].second.top_p = 0.95f;
  transforms[3] = {"min-p 0.05", transforms[0].second};
  transforms[3].second.min_p = 0.05f;
  transforms[4] = {"top-k, top-p, min-p", transforms[1].second};
  transforms[4].second.top_p = 0.95f;
  transforms[4].second.min_p = 0.05f;
  transforms[5] = {"penalties", transforms[0].second};
  transforms[5].second.repetition_penalty = 1.1f;
  for (const int rows : {1, Round::kRows}) {
    const double row_bytes = 4.0 * rows * Round::kVocab;
    const TensorView logits = round.logits.rows(0, rows);
    const TensorView probs = round.main_probs.rows(0, rows);
    line("rows", rows, 0, [&] {
      Rows cut = round.rows;
      cut.count = rows;
      backend.round_rows(round.view, 0, 0, cut, *stream);
    });
    line("argmax", rows, row_bytes, [&] {
      backend.argmax(round.view, logits, {}, 0, nullptr, round.view.main_tokens, *stream);
    });
    line("gumbel argmax", rows, row_bytes,
         [&] { backend.gumbel_argmax(round.view, probs, 1, round.view.main_tokens, *stream); });
    line("sample", rows, row_bytes, [&] {
      backend.sample(round.view, probs, 1, RandomPurpose::kDraft, round.view.main_tokens, *stream);
    });
  }
  const double laws = 4.0 * Round::kVocab;
  line("accept exact", Round::kRows, 0,
       [&] { backend.accept(round.view, AcceptRule::kExact, Round::kDrafts, *stream); });
  line("accept rejection", Round::kRows, 2 * laws,
       [&] { backend.accept(round.view, AcceptRule::kRejection, Round::kDrafts, *stream); });
  line("accept block", Round::kRows, 2 * Round::kDrafts * laws,
       [&] { backend.accept(round.view, AcceptRule::kBlock, Round::kDrafts, *stream); });
  for (const auto& [name, transform] : transforms) {
    for (const int rows : {1, Round::kRows}) {
      line(std::string("distribution ") + name, rows, 8.0 * rows * Round::kVocab, [&] {
        backend.distribution(round.view, round.logits.rows(0, rows), transform, 0, nullptr,
                             round.main_probs.rows(0, rows), *stream);
      });
    }
  }
}

}  // namespace tandem::bench
