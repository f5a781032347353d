#include "support/table_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "tandem/error.h"

namespace tandem::test {
namespace {
/// An impossible token: its probability underflows to exactly 0 at any temperature used here.
constexpr float kImpossible = -1e4f;
}  // namespace

TableModel::TableModel(Backend& backend, int vocab, std::vector<float> table, int max_positions,
                       int max_rows)
    : backend_(backend),
      vocab_(vocab),
      table_(std::move(table)),
      max_positions_(max_positions),
      max_rows_(max_rows),
      cache_(static_cast<size_t>(max_positions), -1),
      logits_(static_cast<size_t>(max_rows) * static_cast<size_t>(vocab)) {
  if (table_.size() != static_cast<size_t>((vocab + 1) * (vocab + 1) * vocab)) {
    throw ShapeError("table of the wrong size");
  }
}

void TableModel::reserve(int, int tokens, Stream&) {
  if (tokens > max_positions_) {
    throw MemoryError("table model: " + std::to_string(tokens) + " positions asked for, " +
                      std::to_string(max_positions_) + " planned");
  }
  reserved_ = std::max(reserved_, tokens);
}

void TableModel::truncate(int, int tokens, Stream&) {
  reserved_ = std::min(reserved_, tokens);
  std::fill(cache_.begin() + tokens, cache_.end(), -1);
}

void TableModel::fork(int, int, int, Stream&) { throw ShapeError("table models do not fork"); }

TensorView TableModel::forward(const Rows& rows, int first_logits_row, Stream&) {
  if (rows.count < 1 || rows.count > max_rows_) throw ShapeError("pass of the wrong width");
  ++passes_;
  rows_run_ += rows.count;
  const auto* slots = rows.slots.as<int32_t>();
  for (int r = 0; r < rows.count; ++r) {
    if (slots[r] < 0 || slots[r] >= reserved_ || slots[r] != rows.positions.as<int32_t>()[r]) {
      throw ShapeError("row at slot " + std::to_string(slots[r]) + ", " +
                       std::to_string(reserved_) + " reserved");
    }
    cache_[static_cast<size_t>(slots[r])] = rows.tokens.as<int32_t>()[r];
  }
  const int count = rows.count - first_logits_row;
  if (count == 0) return {};
  for (int r = first_logits_row; r < rows.count; ++r) {
    const auto row = logits_behind(std::span(cache_).first(static_cast<size_t>(slots[r]) + 1));
    std::copy(row.begin(), row.end(), logits_.begin() + (r - first_logits_row) * vocab_);
  }
  return TensorView(logits_.data(), DType::kF32, {count, vocab_}, backend_.device());
}

std::span<const float> TableModel::logits_behind(std::span<const int32_t> text) const {
  constexpr int kWeights = 7;  // so that the order counts
  const int32_t last = text.back();
  int checksum = 0, weight = 0;
  for (const int32_t token : text.first(text.size() - 1)) {
    weight = weight % kWeights + 1;
    checksum += (token + 2) * weight;
  }
  const auto columns = static_cast<size_t>(vocab_);
  const auto before = text.size() == 1 ? columns : static_cast<size_t>(checksum % vocab_);
  const size_t known = last >= 0 && last < vocab_ ? static_cast<size_t>(last) : columns;
  return {table_.data() + (before * (columns + 1) + known) * columns, columns};
}

std::string name_of(DraftQuality quality) {
  switch (quality) {
    case DraftQuality::kEqual:
      return "equal";
    case DraftQuality::kClose:
      return "close";
    case DraftQuality::kFar:
      return "far";
    case DraftQuality::kDisjoint:
      return "disjoint";
  }
  return "?";
}

std::vector<float> random_table(int vocab, float spread, bool holes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, spread);
  const auto columns = static_cast<size_t>(vocab);
  std::vector<float> table((columns + 1) * (columns + 1) * columns);
  for (size_t row = 0; row < table.size(); row += columns) {
    for (size_t i = 0; i < columns; ++i) {
      table[row + i] = normal(random);
      // At least one token stays possible and one impossible.
      const bool hole = i == 0 || (i > 1 && random() % 2 == 0);
      if (holes && hole) table[row + i] = kImpossible;
    }
    if (holes)
      std::shuffle(table.begin() + static_cast<ptrdiff_t>(row),
                   table.begin() + static_cast<ptrdiff_t>(row + columns), random);
  }
  return table;
}

std::vector<float> draft_table(const std::vector<float>& main, int vocab, DraftQuality quality,
                               uint64_t seed) {
  constexpr float kCloseNoise = 0.5f, kFarSpread = 1.5f;
  const std::vector<float> noise =
      random_table(vocab, quality == DraftQuality::kClose ? kCloseNoise : kFarSpread, false, seed);
  std::vector<float> table = main;
  for (size_t i = 0; i < table.size(); ++i) {
    switch (quality) {
      case DraftQuality::kEqual:
        break;
      case DraftQuality::kClose:
        table[i] += noise[i];
        break;
      case DraftQuality::kFar:
        table[i] = noise[i];
        break;
      case DraftQuality::kDisjoint:
        table[i] = main[i] == kImpossible ? noise[i] : kImpossible;
        break;
    }
  }
  return table;
}

std::vector<double> softmax(std::span<const float> logits, double temperature) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> probs;
  double sum = 0;
  for (const float x : logits) {
    probs.push_back(std::exp((static_cast<double>(x) - largest) / temperature));
    sum += probs.back();
  }
  for (double& p : probs) p /= sum;
  return probs;
}

std::vector<double> joint_law(const TableModel& model, std::span<const int32_t> prompt, int tokens,
                              double temperature) {
  std::vector<double> law = {1.0};
  std::vector<std::vector<int32_t>> texts = {{prompt.begin(), prompt.end()}};
  for (int t = 0; t < tokens; ++t) {
    std::vector<double> next_law;
    std::vector<std::vector<int32_t>> next_texts;
    for (size_t i = 0; i < law.size(); ++i) {
      const auto probs = softmax(model.logits_behind(texts[i]), temperature);
      for (size_t x = 0; x < probs.size(); ++x) {
        next_law.push_back(law[i] * probs[x]);
        next_texts.push_back(texts[i]);
        next_texts.back().push_back(static_cast<int32_t>(x));
      }
    }
    law = std::move(next_law);
    texts = std::move(next_texts);
  }
  return law;
}

}  // namespace tandem::test
