#include "spec/row_buffer.h"

#include <algorithm>
#include <numeric>
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

void RowBuffer::prefill(LanguageModel& model, int sequence, std::span<const int32_t> tokens,
                        Stream& stream) const {
  Backend& backend = model.backend();
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t> sequences(tokens.size(), sequence);
  const auto chunk = static_cast<size_t>(rows_.count);
  for (size_t first = 0; first < tokens.size(); first += chunk) {
    const size_t count = std::min(chunk, tokens.size() - first);
    const auto upload = [&](const TensorView& to, const int32_t* from) {
      backend.copy_to_device(to.data(), from, count * sizeof(int32_t), stream);
    };
    const Rows chunk_rows = rows(static_cast<int>(count));
    upload(chunk_rows.tokens, tokens.data() + first);
    upload(chunk_rows.positions, positions.data() + first);
    upload(chunk_rows.slots, positions.data() + first);
    upload(chunk_rows.sequences, sequences.data() + first);
    model.forward(chunk_rows, chunk_rows.count, stream);
  }
  stream.synchronize();
}

}  // namespace tandem
