#include "spec/model_drafter.h"

#include <algorithm>
#include <vector>

#include "tandem/error.h"

namespace tandem {
namespace {
constexpr int kSequence = 0;
/// Rows of the first pass of a round: positions length - 1 and length (DESIGN 3).
constexpr int kCatchUpRows = 2;
/// Passes of at most this many rows are width-invariant (DESIGN 4): catching up uses no wider ones.
constexpr int kMaxCatchUpRows = 16;
}  // namespace

uint64_t ModelDrafter::bytes(int max_rows, int main_vocab) {
  return RowBuffer::bytes(max_rows) + ArenaSize().add(DType::kU8, {main_vocab}).bytes();
}

ModelDrafter::ModelDrafter(LanguageModel& model, int main_vocab, std::span<const uint8_t> allowed)
    : model_(model),
      main_vocab_(main_vocab),
      device_(model.backend().device()),
      arena_(model.backend().memory(), bytes(model.max_rows(), main_vocab), "drafter"),
      rows_(arena_, model.max_rows()) {
  if (model.max_rows() < kCatchUpRows) {
    throw ShapeError("a draft model needs passes of at least two rows");
  }
  if (allowed.empty()) return;
  const auto known = std::min<size_t>(static_cast<size_t>(std::min(main_vocab, model.vocab_size())),
                                      allowed.size());
  const auto ones = static_cast<size_t>(
      std::count_if(allowed.begin(), allowed.begin() + static_cast<ptrdiff_t>(known),
                    [](uint8_t flag) { return flag != 0; }));
  if (ones == 0) {
    throw ModelError(
        "the draft model shares no token with the main model: nothing could be drafted");
  }
  // Without a hole below the smaller vocabulary the ops need no mask.
  if (ones == static_cast<size_t>(std::min(main_vocab, model.vocab_size()))) return;
  std::vector<uint8_t> mask(static_cast<size_t>(main_vocab), 0);
  std::copy_n(allowed.begin(), known, mask.begin());
  const TensorView view = arena_.take(DType::kU8, {main_vocab});
  const auto stream = model.backend().make_stream();
  model.backend().copy_to_device(view.data(), mask.data(), mask.size(), *stream);
  stream->synchronize();
  allowed_ = view.as<uint8_t>();
}

void ModelDrafter::start(const RoundView& round, std::span<const int32_t> prompt,
                         const DecodeRule& rule, Stream& stream) {
  restart(rule);
  model_.truncate(kSequence, 0, stream);
  const auto cached = static_cast<int>(prompt.size()) - 1;
  if (capacity(cached, 1) == 0) return;  // a prompt beyond the draft's context is never drafted for
  model_.reserve(kSequence, cached, stream);
  rows_.prefill(model_, round, kSequence, cached, stream);
}

void ModelDrafter::restart(const DecodeRule& rule) {
  if (rule == rule_) return;
  rule_ = rule;
  for (auto& graph : graphs_) graph.reset();
}

int ModelDrafter::capacity(int length, int wanted) const {
  if (length < kCatchUpRows - 1) return 0;  // the first pass begins one position before `length`
  return std::clamp(model_.max_positions() - length, 0, wanted);
}

int ModelDrafter::draft(const RoundView& round, const DraftRequest& request, Stream& stream) {
  model_.reserve(kSequence, request.most_length + request.num_drafts, stream);
  catch_up(round, std::min(request.uncached, request.length - 1), stream);
  auto& graph = graphs_[static_cast<size_t>(request.num_drafts)];
  if (graph == nullptr) {
    graph = model_.backend().capture(
        stream, [this, round, k = request.num_drafts, &stream] { run(round, k, stream); });
  }
  graph->launch(stream);
  return request.num_drafts;
}

void ModelDrafter::catch_up(const RoundView& round, int uncached, Stream& stream) {
  const int widest = std::min(kMaxCatchUpRows, model_.max_rows());
  while (uncached > 0) {
    const Rows rows = rows_.rows(std::min(uncached, widest));
    model_.backend().round_rows(round, -uncached - 1, kSequence, rows, stream);
    model_.forward(rows, rows.count, stream);
    uncached -= rows.count;
  }
}

void ModelDrafter::run(const RoundView& round, int num_drafts, Stream& stream) {
  Backend& backend = model_.backend();
  const Rows first = rows_.rows(kCatchUpRows);
  backend.round_rows(round, 1 - kCatchUpRows, kSequence, first, stream);
  choose(round, 0, model_.forward(first, kCatchUpRows - 1, stream), stream);
  const Rows row = rows_.rows(1);
  for (int i = 1; i < num_drafts; ++i) {
    backend.round_rows(round, i, kSequence, row, stream);
    choose(round, i, model_.forward(row, 0, stream), stream);
  }
}

void ModelDrafter::choose(const RoundView& round, int index, TensorView logits, Stream& stream) {
  Backend& backend = model_.backend();
  int32_t* const id = round.drafts + index;
  if (rule_.kind == DecodeRule::Kind::kGreedy) {
    backend.argmax(round, logits, rule_.transform, index, allowed_, id, stream);
    return;
  }
  const TensorView probs(round.draft_probs + int64_t{index} * main_vocab_, DType::kF32,
                         {1, main_vocab_}, device_);
  const int position = index + 1;  // behind `length`
  backend.distribution(round, logits, rule_.transform, index, allowed_, probs, stream);
  if (rule_.kind == DecodeRule::Kind::kCoupled) {
    backend.gumbel_argmax(round, probs, position, id, stream);
  } else {
    backend.sample(round, probs, position, RandomPurpose::kDraft, id, stream);
  }
}

}  // namespace tandem
