#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "core/memory.h"
#include "spec/row_buffer.h"

namespace tandem {

/// What the buffers of a round are sized by; fixed for the life of a decoder.
struct RoundShape {
  int sequences = 1;
  int max_drafts = 0;        ///< K_max
  int vocab = 0;             ///< V, of the main model
  int max_positions = 0;     ///< the main model's context
  int max_rows = 0;          ///< of one pass of the main model
  bool draft_probs = false;  ///< the drafter gives probabilities: q is not one-hot

  /// Positions that a sequence's history has: the context, and room for one round.
  int history_stride() const { return max_positions + max_drafts + 1; }
};

/// The most log-probabilities beside the token's own that a round can report.
inline constexpr int kMaxTopLogprobs = 20;

/// Rounds that may be on their way at once: one at work, and one queued behind it.
inline constexpr int kRoundsInFlight = 2;

/// Owns the fixed-address device buffers of one round (DESIGN 3) and the ring of host memory in
/// which results arrive. Everything is allocated when made: on the device out of one arena of
/// `bytes(shape)`, on the host page-locked. One thread at a time.
class RoundState {
 public:
  /// Bytes of device memory that the constructor takes; pure arithmetic, for plans.
  static uint64_t bytes(const RoundShape& shape);

  /// @throws MemoryError when the device has no room; ShapeError for an impossible shape
  RoundState(Backend& backend, const RoundShape& shape);

  const RoundShape& shape() const { return shape_; }

  /// Queues the set-up of a new text: history = prompt, length = prompt - 1 (the last token is in
  /// no cache yet), no round committed, no output counted. The view has penalty buffers only when
  /// `penalties`. Work queued for the last text must be done.
  /// @throws ShapeError when the prompt is empty or longer than the context
  void start(std::span<const int32_t> prompt, uint64_t seed, bool penalties, Stream& stream);

  /// Addresses stay the same for the life of the state; `output_counts` and `prompt_seen` come and
  /// go with `start(…, penalties, …)`.
  const RoundView& view() const { return view_; }

  /// Row descriptors for the main model's passes.
  const RowBuffer& rows() const { return rows_; }
  /// The main model's distributions at these rows.                     (num_drafts + 1, V) f32
  TensorView main_probs(int num_drafts) const;

  /// Where `Backend::log_probabilities` puts its results of a round, for `top` up to
  /// kMaxTopLogprobs.
  struct LogprobBuffers {
    float* logprobs = nullptr;      ///< (K_max + 1)
    int32_t* top_ids = nullptr;     ///< (K_max + 1, top)
    float* top_logprobs = nullptr;  ///< (K_max + 1, top)
    float* logsumexp = nullptr;     ///< (K_max + 1)
  };
  const LogprobBuffers& logprobs() const { return logprobs_; }

  /// Where `Backend::expected_acceptance` puts its results.                  (S, K_max) f32
  float* expected_acceptance() const { return expected_acceptance_; }

  /// Says how many drafts stand in round `number` of the text, to be queued in front of it, for a
  /// verifier that is forced.
  void force_accepted(int64_t number, int accepted, Stream& stream);
  /// What that made of `RoundView::count`.                                         (S) i32
  const int32_t* forced_count() const { return forced_count_; }

  /// Queues the copy of what round `number` of the text gave (from 0; with log-probabilities of
  /// `top` ids when top >= 0) to the host. `result(number)` is that once the stream has passed this
  /// point, until round number + kRoundsInFlight is fetched. Tokens are kept on the device as long;
  /// the rest must be fetched before the next round computes its own.
  void fetch(int64_t number, int top, bool with_expected_acceptance, Stream& stream);

  /// A round's results in host memory.
  struct Result {
    std::span<const int32_t> output;             ///< accepted tokens, then one more
    const float* logprobs = nullptr;             ///< by row
    const int32_t* top_ids = nullptr;            ///< (rows, top)
    const float* top_logprobs = nullptr;         ///< (rows, top)
    const float* expected_acceptance = nullptr;  ///< by draft
  };
  /// @throws DeviceError when the count is impossible
  Result result(int64_t number) const;

 private:
  Backend& backend_;
  RoundShape shape_;
  Arena arena_;
  RoundView view_;
  RowBuffer rows_;
  TensorView main_probs_;
  int32_t* output_counts_ = nullptr;
  uint8_t* prompt_seen_ = nullptr;
  uint64_t* seeds_ = nullptr;
  int32_t* streams_ = nullptr;
  LogprobBuffers logprobs_;
  float* expected_acceptance_ = nullptr;
  int32_t* forced_count_ = nullptr;

  /// Where a round's results arrive.
  struct HostResult {
    int32_t* counted = nullptr;  ///< count, then output
    float* logprobs = nullptr;
    int32_t* top_ids = nullptr;
    float* top_logprobs = nullptr;
    float* expected_acceptance = nullptr;
    int32_t* forced_count = nullptr;  ///< on its way to the device, not from there
  };
  /// What a text begins with, for copies to read.
  struct TextStart {
    uint64_t seed = 0;
    int32_t length = 0;
    int32_t stream = 0;
  };
  const HostResult& host_result(int64_t number) const {
    return host_results_[static_cast<size_t>(number % kRoundsInFlight)];
  }
  void carve_host();
  int result_ints() const { return shape_.sequences * (shape_.max_drafts + 2); }

  HostBuffer host_memory_;
  std::array<HostResult, kRoundsInFlight> host_results_;
  TextStart* host_start_ = nullptr;
  int32_t* host_prompt_ = nullptr;
  uint8_t* host_prompt_seen_ = nullptr;
};

}  // namespace tandem
