#include "spec/row_buffer.h"

#include <algorithm>
#include <string>

#include "tandem/error.h"

namespace tandem {
namespace {
constexpr int kDescriptors = 4;  ///< tokens, positions, slots, sequences
}

uint64_t RowBuffer::bytes(int max_rows) {
  ArenaSize size;
  for (int i = 0; i < kDescriptors; ++i) size.add(DType::kI32, {max_rows});
  return size.bytes();
}

RowBuffer::RowBuffer(Arena& arena, int max_rows) {
  rows_.count = max_rows;
  for (TensorView* view : {&rows_.tokens, &rows_.positions, &rows_.slots, &rows_.sequences}) {
    *view = arena.take(DType::kI32, {max_rows});
  }
}

Rows RowBuffer::rows(int count) const {
  if (count < 0 || count > rows_.count) {
    throw ShapeError("a pass of " + std::to_string(count) + " rows, the buffers hold " +
                     std::to_string(rows_.count));
  }
  Rows rows = rows_;
  rows.count = count;
  return rows;
}

void RowBuffer::prefill(LanguageModel& model, const RoundView& round, int sequence, int length,
                        Stream& stream) const {
  for (int first = 0; first < length; first += rows_.count) {
    const Rows chunk = rows(std::min(rows_.count, length - first));
    model.backend().round_rows(round, first - length, sequence, chunk, stream);
    model.forward(chunk, chunk.count, stream);
  }
}

}  // namespace tandem
