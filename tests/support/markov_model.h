#pragma once

#include <array>
#include <cmath>
#include <vector>

#include "core/memory.h"
#include "model/language_model.h"
#include "tandem/error.h"

namespace tandem::test {

/// A language model whose logits are a row of a table for the last token: one `embed`, so that the
/// real loop with captured rounds runs it on any device many times a second, and its law is known.
class MarkovModel final : public LanguageModel {
 public:
  /// Logits beyond the vocabulary, which no op may choose.
  static constexpr int kColumns = 64;

  /// @param table (vocab, vocab) logits by last token; held in bfloat16
  MarkovModel(Backend& backend, int vocab, const std::vector<float>& table, int max_positions,
              int max_rows)
      : backend_(backend),
        vocab_(vocab),
        max_positions_(max_positions),
        max_rows_(max_rows),
        spec_{.cols = kColumns, .segments = {{vocab, WeightFormat::kBF16}}},
        weight_(backend.memory(), packed_weight_bytes(backend.device().kind, spec_), "table"),
        logits_(backend.memory(), sizeof(float) * kColumns * static_cast<size_t>(max_rows),
                "logits") {
    constexpr float kTempting = 50;  // what stands beyond the vocabulary
    std::vector<uint16_t> bits(static_cast<size_t>(vocab * kColumns), float_to_bf16(kTempting));
    for (int row = 0; row < vocab; ++row) {
      std::vector<double>& law = laws_.emplace_back();
      double sum = 0;
      for (int id = 0; id < vocab; ++id) {
        const uint16_t value = float_to_bf16(table[static_cast<size_t>(row * vocab + id)]);
        bits[static_cast<size_t>(row * kColumns + id)] = value;
        law.push_back(std::exp(static_cast<double>(bf16_to_float(value))));
        sum += law.back();
      }
      for (double& p : law) p /= sum;
    }
    const std::array<HostMatrix, 1> matrix = {HostMatrix{.data = bits.data(),
                                                         .dtype = DType::kBF16,
                                                         .rows = vocab,
                                                         .cols = kColumns,
                                                         .row_stride = kColumns}};
    const auto stream = backend.make_stream();
    view_ = backend.load_weight(spec_, matrix, {}, weight_.data(), *stream);
    stream->synchronize();
  }

  Backend& backend() override { return backend_; }
  int vocab_size() const override { return vocab_; }
  int max_positions() const override { return max_positions_; }
  int max_rows() const override { return max_rows_; }
  void reserve(int, int, Stream&) override {}
  void truncate(int, int, Stream&) override {}
  void fork(int, int, int, Stream&) override { throw ShapeError("Markov models do not fork"); }
  TensorView forward(const Rows& rows, int first_logits_row, Stream& stream) override {
    const int count = rows.count - first_logits_row;
    if (count == 0) return {};
    Rows wanted{.count = count,
                .tokens = rows.tokens.rows(first_logits_row, count),
                .positions = rows.positions.rows(first_logits_row, count),
                .slots = rows.slots.rows(first_logits_row, count),
                .sequences = rows.sequences.rows(first_logits_row, count)};
    const TensorView logits(logits_.data(), DType::kF32, {count, kColumns}, backend_.device());
    backend_.embed(wanted, view_, logits, stream);
    return logits;
  }

  /// Probabilities at temperature 1 of what follows `token`.
  const std::vector<double>& law_behind(int token) const {
    return laws_[static_cast<size_t>(token)];
  }

 private:
  Backend& backend_;
  int vocab_;
  int max_positions_;
  int max_rows_;
  WeightSpec spec_;
  DeviceBuffer weight_, logits_;
  WeightView view_;
  std::vector<std::vector<double>> laws_;
};

}  // namespace tandem::test
