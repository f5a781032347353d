#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/language_model.h"

namespace tandem::test {

/// A language model on a small vocabulary whose logits are a table of the last token and a checksum
/// of all before it. Its cache holds the tokens that were run, slot by slot, so that a pass that
/// was left out, or a rollback that was not one, changes what it says. Runs on host memory.
class TableModel final : public LanguageModel {
 public:
  /// @param table ((vocab + 1)^2, vocab) logits by checksum and last token; index `vocab` stands
  /// for
  ///              a token beyond the vocabulary and for "nothing before"
  TableModel(Backend& backend, int vocab, std::vector<float> table, int max_positions,
             int max_rows);

  Backend& backend() override { return backend_; }
  int vocab_size() const override { return vocab_; }
  int max_positions() const override { return max_positions_; }
  int max_rows() const override { return max_rows_; }
  void reserve(int sequence, int tokens, Stream& stream) override;
  void truncate(int sequence, int tokens, Stream& stream) override;
  void fork(int from, int to, int tokens, Stream& stream) override;
  TensorView forward(const Rows& rows, int first_logits_row, Stream& stream) override;

  /// Logits behind a text.
  std::span<const float> logits_behind(std::span<const int32_t> text) const;
  int64_t passes() const { return passes_; }
  int64_t rows_run() const { return rows_run_; }

 private:
  Backend& backend_;
  int vocab_;
  std::vector<float> table_;
  int max_positions_;
  int max_rows_;
  int reserved_ = 0;
  std::vector<int32_t> cache_;
  std::vector<float> logits_;
  int64_t passes_ = 0;
  int64_t rows_run_ = 0;
};

/// How a draft's table relates to the main model's.
enum class DraftQuality { kEqual, kClose, kFar, kDisjoint };
std::string name_of(DraftQuality quality);

/// Logits for a main model: normal with standard deviation `spread`. With `holes`, about half of
/// the tokens are impossible behind each context.
std::vector<float> random_table(int vocab, float spread, bool holes, uint64_t seed);
/// A draft's table for that main table; kDisjoint needs a main table with holes, and proposes only
/// what is impossible there.
std::vector<float> draft_table(const std::vector<float>& main, int vocab, DraftQuality quality,
                               uint64_t seed);

/// softmax(logits / temperature) in double precision.
std::vector<double> softmax(std::span<const float> logits, double temperature = 1);

/// The exact law of the next `tokens` tokens behind a prompt: (vocab^tokens) probabilities, the
/// first token being the most significant digit of the index.
std::vector<double> joint_law(const TableModel& model, std::span<const int32_t> prompt, int tokens,
                              double temperature = 1);

}  // namespace tandem::test
