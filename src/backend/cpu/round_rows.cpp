#include <algorithm>
#include <string>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/round_math.h"

namespace tandem {

void CpuBackend::round_rows(const RoundView& round, int first, int cache_sequence, const Rows& rows,
                            Stream&) {
  if (rows.count % round.sequences != 0 || rows.count > rows.tokens.count()) {
    throw ShapeError("round_rows: " + std::to_string(rows.count) + " rows, room for " +
                     std::to_string(rows.tokens.count()) + ", " + std::to_string(round.sequences) +
                     " sequences");
  }
  auto* tokens = rows.tokens.as<int32_t>();
  auto* positions = rows.positions.as<int32_t>();
  auto* slots = rows.slots.as<int32_t>();
  auto* sequences = rows.sequences.as<int32_t>();
  for (int r = 0; r < rows.count; ++r) {
    const auto [s, i] = round::row_of(r, rows.count, round.sequences);
    const int offset = first + i;
    const int position = std::max(round.length[s] + offset, 0);
    const int32_t* history = round.history + int64_t{s} * round.history_stride;
    const int32_t* drafts = round.drafts + int64_t{s} * round.max_drafts;
    tokens[r] = offset <= 0 ? history[position] : drafts[offset - 1];
    positions[r] = position;
    slots[r] = position;
    sequences[r] = cache_sequence + s;
  }
}

void CpuBackend::commit(const RoundView& round, Stream&) {
  for (int s = 0; s < round.sequences; ++s) {
    const int32_t* output = round.output + int64_t{s} * (round.max_drafts + 1);
    int32_t* history = round.history + int64_t{s} * round.history_stride;
    const int count = round.count[s];
    std::copy_n(output, count, history + round.length[s] + 1);
    if (round.output_counts != nullptr) {
      int32_t* counts = round.output_counts + int64_t{s} * round.vocab;
      for (int i = 0; i < count; ++i) ++counts[output[i]];
    }
    round.length[s] += count;
    if (round.results == nullptr) continue;
    const int slot = round.rounds[s]++ % round.result_slots;
    int32_t* result = round.results + int64_t{slot} * round.sequences * (round.max_drafts + 2);
    result[s] = count;
    std::copy_n(output, count, result + round.sequences + int64_t{s} * (round.max_drafts + 1));
  }
}

}  // namespace tandem
