#pragma once

#include <cstdint>
#include <span>
#include <vector>

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
};

/// The most log-probabilities beside the token's own that a round can report.
inline constexpr int kMaxTopLogprobs = 20;

/// Owns the fixed-address device buffers of one round (DESIGN 3) and the host memory in which its
/// results arrive. Everything is allocated when made, out of one arena of `bytes(shape)`.
/// One thread at a time.
class RoundState {
 public:
  /// Bytes of device memory that the constructor takes; pure arithmetic, for plans.
  static uint64_t bytes(const RoundShape& shape);

  /// @throws MemoryError when the device has no room; ShapeError for an impossible shape
  RoundState(Backend& backend, const RoundShape& shape);

  const RoundShape& shape() const { return shape_; }

  /// Sets up a new text: history = prompt, length = prompt - 1 (the last token is in no cache yet),
  /// no output counted. The view has penalty buffers only when `penalties`. Waits for the stream.
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

  /// Queues the copy of output and count (and log-probabilities of `top` ids when top >= 0) to the
  /// host; the functions below give them once the stream has passed this point.
  void fetch(int top, Stream& stream);
  /// The same for `expected_acceptance`.
  void fetch_expected_acceptance(Stream& stream);
  /// Accepted tokens, then one more. @throws DeviceError when the count is impossible
  std::span<const int32_t> output() const;
  /// Of the round's first draft, the second, …
  std::span<const float> expected_acceptances() const { return host_expected_acceptance_; }
  float logprob(int row) const { return host_logprobs_[static_cast<size_t>(row)]; }
  int32_t top_id(int row, int rank, int top) const {
    return host_top_ids_[static_cast<size_t>(row * top + rank)];
  }
  float top_logprob(int row, int rank, int top) const {
    return host_top_logprobs_[static_cast<size_t>(row * top + rank)];
  }

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

  // Host memory that copies read from or write to while the device works.
  std::vector<int32_t> host_prompt_;
  std::vector<uint8_t> host_prompt_seen_;
  std::vector<int32_t> host_result_;
  std::vector<float> host_expected_acceptance_;
  std::vector<float> host_logprobs_;
  std::vector<int32_t> host_top_ids_;
  std::vector<float> host_top_logprobs_;
};

}  // namespace tandem
