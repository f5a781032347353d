#include "model/token_scores.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>

#include "model/model_memory.h"
#include "tandem/error.h"

namespace tandem {
namespace {

void check(const LanguageModel& model, std::span<const int32_t> ids, int top) {
  if (ids.empty()) throw UsageError("there are no token ids; at least one is needed");
  if (static_cast<int64_t>(ids.size()) > model.max_positions()) {
    throw UsageError(std::to_string(ids.size()) + " token ids do not fit the context of " +
                     std::to_string(model.max_positions()));
  }
  for (const int32_t id : ids) {
    if (id < 0 || id >= model.vocab_size()) {
      throw UsageError("token id " + std::to_string(id) + " is outside the vocabulary, 0 to " +
                       std::to_string(model.vocab_size() - 1));
    }
  }
  if (top < 0 || top > model.vocab_size()) {
    throw UsageError("the " + std::to_string(top) + " most likely tokens were asked for; 0 to " +
                     std::to_string(model.vocab_size()) + " are possible");
  }
}

void append_row(std::span<const float> logits, int top, TokenScores& scores) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  std::partial_sort(order.begin(), order.begin() + top, order.end(), more_likely);
  order.resize(static_cast<size_t>(top));
  std::vector<float> values;
  for (const int32_t id : order) values.push_back(logits[static_cast<size_t>(id)]);

  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  scores.top_ids.push_back(std::move(order));
  scores.top_logits.push_back(std::move(values));
  scores.logsumexp.push_back(static_cast<float>(largest + std::log(sum)));
}

/// Row descriptors of consecutive positions of sequence 0.
class ChainRows {
 public:
  ChainRows(Backend& backend, int max_rows)
      : backend_(backend),
        arena_(backend.memory(), ArenaSize().add(DType::kI32, {kRowFields * max_rows}).bytes(),
               "scoring rows"),
        fields_(arena_.take(DType::kI32, {kRowFields * max_rows})) {}

  Rows upload(std::span<const int32_t> tokens, int first_position, Stream& stream) {
    const auto count = static_cast<int64_t>(tokens.size());
    host_.assign(tokens.begin(), tokens.end());
    host_.resize(tokens.size() * kRowFields, 0);   // the sequence
    for (size_t field = 1; field <= 2; ++field) {  // position and slot
      const auto begin = host_.begin() + static_cast<ptrdiff_t>(field * tokens.size());
      std::iota(begin, begin + count, first_position);
    }
    backend_.copy_to_device(fields_.data(), host_.data(), host_.size() * sizeof(int32_t), stream);
    return {static_cast<int>(count), fields_.rows(0, count), fields_.rows(count, count),
            fields_.rows(2 * count, count), fields_.rows(3 * count, count)};
  }

 private:
  Backend& backend_;
  Arena arena_;
  TensorView fields_;
  std::vector<int32_t> host_;
};

}  // namespace

TokenScores score_tokens(LanguageModel& model, std::span<const int32_t> ids, int top) {
  check(model, ids, top);
  Backend& backend = model.backend();
  const std::unique_ptr<Stream> stream = backend.make_stream();
  const auto chunk = static_cast<size_t>(model.max_logits_rows());
  const auto vocab = static_cast<size_t>(model.vocab_size());
  ChainRows rows(backend, model.max_logits_rows());
  TokenScores scores;
  std::vector<float> logits;
  model.truncate(0, 0, *stream);
  model.reserve(0, static_cast<int>(ids.size()), *stream);
  for (size_t done = 0; done < ids.size(); done += chunk) {
    const std::span<const int32_t> part = ids.subspan(done, std::min(chunk, ids.size() - done));
    const TensorView view =
        model.forward(rows.upload(part, static_cast<int>(done), *stream), 0, *stream);
    logits.resize(part.size() * vocab);
    backend.copy_to_host(logits.data(), view.data(), view.bytes(), *stream);
    stream->synchronize();
    for (size_t row = 0; row < part.size(); ++row)
      append_row(std::span(logits).subspan(row * vocab, vocab), top, scores);
  }
  model.truncate(0, 0, *stream);
  return scores;
}

}  // namespace tandem
