#include "support/model_runner.h"

#include <algorithm>
#include <numeric>

#include "tandem/error.h"

namespace tandem::test {
namespace {

constexpr int kFields = 4;  // tokens, positions, slots, sequences

}  // namespace

ModelRunner::ModelRunner(LanguageModel& model)
    : model_(model),
      stream_(model.backend().make_stream()),
      arena_(model.backend().memory(),
             ArenaSize()
                 .add(DType::kI32, {kFields * model.max_rows()})
                 .add(DType::kI32, {model.max_rows()})
                 .bytes(),
             "test rows"),
      fields_(arena_.take(DType::kI32, {kFields * model.max_rows()})),
      ids_(arena_.take(DType::kI32, {model.max_rows()})) {}

std::vector<float> ModelRunner::run(std::span<const int32_t> tokens, int first, int sequence,
                                    int first_logits_row) {
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), first);
  return run_rows({tokens.begin(), tokens.end()}, positions,
                  std::vector<int32_t>(tokens.size(), sequence), first_logits_row);
}

Rows ModelRunner::prepare(const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
                          const std::vector<int32_t>& sequences) {
  Backend& backend = model_.backend();
  const auto count = static_cast<int64_t>(tokens.size());
  if (count > model_.max_rows()) throw ShapeError("test: more rows than the model's max_rows");
  std::vector<int32_t> host;
  for (const std::vector<int32_t>* field : {&tokens, &positions, &positions, &sequences}) {
    host.insert(host.end(), field->begin(), field->end());
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    model_.reserve(sequences[i], positions[i] + 1, *stream_);
  }
  backend.copy_to_device(fields_.data(), host.data(), host.size() * sizeof(int32_t), *stream_);
  return {static_cast<int>(count), fields_.rows(0, count), fields_.rows(count, count),
          fields_.rows(2 * count, count), fields_.rows(3 * count, count)};
}

std::vector<float> ModelRunner::run_rows(const std::vector<int32_t>& tokens,
                                         const std::vector<int32_t>& positions,
                                         const std::vector<int32_t>& sequences,
                                         int first_logits_row) {
  const Rows rows = prepare(tokens, positions, sequences);
  const TensorView view = model_.forward(rows, first_logits_row, *stream_);
  if (view.empty()) return {};
  std::vector<float> logits(static_cast<size_t>(view.count()));
  model_.backend().copy_to_host(logits.data(), view.data(), view.bytes(), *stream_);
  stream_->synchronize();
  return logits;
}

std::vector<int32_t> ModelRunner::run_argmax(std::span<const int32_t> tokens, int first,
                                             int first_row) {
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), first);
  const Rows rows =
      prepare({tokens.begin(), tokens.end()}, positions, std::vector<int32_t>(tokens.size(), 0));
  model_.forward_argmax(rows, first_row, ids_.as<int32_t>(), *stream_);
  std::vector<int32_t> ids(tokens.size() - static_cast<size_t>(first_row));
  model_.backend().copy_to_host(ids.data(), ids_.data(), ids.size() * sizeof(int32_t), *stream_);
  stream_->synchronize();
  return ids;
}

std::vector<int32_t> ModelRunner::greedy(std::span<const int32_t> prompt, int count) {
  const auto vocab = static_cast<size_t>(model_.vocab_size());
  model_.truncate(0, 0, *stream_);
  std::vector<int32_t> tokens;
  std::vector<float> logits = run(prompt, 0);
  int position = static_cast<int>(prompt.size());
  while (static_cast<int>(tokens.size()) < count) {
    tokens.push_back(argmax(std::span(logits).last(vocab)));
    if (static_cast<int>(tokens.size()) < count)
      logits = run(std::span(tokens).last(1), position++);
  }
  return tokens;
}

int32_t argmax(std::span<const float> values) {
  return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

}  // namespace tandem::test
