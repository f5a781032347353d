#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "core/memory.h"
#include "model/language_model.h"

namespace tandem {

/// Device memory for the row descriptors of one pass, and the prefill that fills it from the host.
class RowBuffer {
 public:
  static uint64_t bytes(int max_rows);
  /// Takes its views out of `arena`.
  RowBuffer(Arena& arena, int max_rows);

  /// The first `count` rows. @throws ShapeError beyond max_rows
  Rows rows(int count) const;

  /// Runs `tokens` at positions 0 … through the model in chunks of at most `max_rows` rows, for
  /// their keys and values alone. Waits for the stream: the tokens are no longer read afterwards.
  void prefill(LanguageModel& model, int sequence, std::span<const int32_t> tokens,
               Stream& stream) const;

 private:
  Rows rows_;
};

}  // namespace tandem
