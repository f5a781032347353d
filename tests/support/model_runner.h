#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/language_model.h"

namespace tandem::test {

/// Runs chains of tokens through a LanguageModel as a decoding loop would, with logits copied to
/// the host.
class ModelRunner {
 public:
  explicit ModelRunner(LanguageModel& model);

  /// Runs the tokens at positions `first`, `first` + 1, … of a sequence, reserving what they need.
  /// @return (tokens - first_logits_row, vocab)
  std::vector<float> run(std::span<const int32_t> tokens, int first, int sequence = 0,
                         int first_logits_row = 0);
  /// Runs any rows; slots equal positions.
  std::vector<float> run_rows(const std::vector<int32_t>& tokens,
                              const std::vector<int32_t>& positions,
                              const std::vector<int32_t>& sequences, int first_logits_row);

  /// As `run`, with each row's largest logit alone: the ids.
  std::vector<int32_t> run_argmax(std::span<const int32_t> tokens, int first, int first_row = 0);

  /// The greedy continuation of a prompt, one row at a time after the prompt.
  std::vector<int32_t> greedy(std::span<const int32_t> prompt, int count);

  LanguageModel& model() { return model_; }
  Stream& stream() { return *stream_; }

 private:
  /// Reserves and uploads. @return the rows of a pass
  Rows prepare(const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
               const std::vector<int32_t>& sequences);

  LanguageModel& model_;
  std::unique_ptr<Stream> stream_;
  Arena arena_;
  TensorView fields_, ids_;
};

/// The index of the largest value, the first of equals.
int32_t argmax(std::span<const float> values);

}  // namespace tandem::test
