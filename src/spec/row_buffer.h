#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "core/memory.h"
#include "model/language_model.h"

namespace tandem {

/// Device memory for the row descriptors of one pass, and the prefill that goes through it.
class RowBuffer {
 public:
  static uint64_t bytes(int max_rows);
  /// Takes its views out of `arena`.
  RowBuffer(Arena& arena, int max_rows);

  /// The first `count` rows. @throws ShapeError beyond max_rows
  Rows rows(int count) const;

  /// Queues the pass over positions [0, length) of the round's history in chunks of at most
  /// `max_rows` rows, for their keys and values alone. `length` is what round.length holds when the
  /// stream gets there; nothing may change it before the stream is through.
  void prefill(LanguageModel& model, const RoundView& round, int sequence, int length,
               Stream& stream) const;

 private:
  Rows rows_;
};

}  // namespace tandem
