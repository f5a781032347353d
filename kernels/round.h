#pragma once

#include "kernels.h"

namespace tandem::kernels {

/// The device buffers of one round; see src/backend/round_view.h for what they hold.
struct RoundArgs {
  int sequences = 1;
  int max_drafts = 0;
  int vocab = 0;
  int history_stride = 0;
  int32_t* length = nullptr;
  int32_t* history = nullptr;
  int32_t* drafts = nullptr;
  float* draft_probs = nullptr;
  float* main_probs = nullptr;
  int32_t* main_tokens = nullptr;
  int32_t* output = nullptr;
  int32_t* count = nullptr;
  int result_slots = 0;
  int32_t* results = nullptr;
  int32_t* rounds = nullptr;
  const int32_t* round_base = nullptr;
  const uint64_t* seeds = nullptr;
  const int32_t* streams = nullptr;
  int32_t* output_counts = nullptr;
  uint8_t* prompt_seen = nullptr;
};

/// Sampling transforms in the order they apply.
struct TransformArgs {
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float temperature = 1;
  int top_k = 0;
  float top_p = 1;
  float min_p = 0;
  bool penalties = false;
};

/// Logits of the rows of a round and what changes them before they are compared.
struct LogitsArgs {
  const float* logits = nullptr;  ///< (rows, columns)
  int rows = 0;
  int columns = 0;
  int prefix = 0;                    ///< row r sees drafts d_1 … d_{prefix + r}
  const uint8_t* allowed = nullptr;  ///< by id; null: all
  TransformArgs transform;
};

/// Purposes of random numbers, as core/philox.h numbers them.
enum class Purpose : uint32_t { kDraft = 0, kAccept = 1, kResidual = 2, kGumbel = 3 };

/// Rules of acceptance.
enum class Rule : int { kExact = 0, kRejection = 1, kBlock = 2 };
constexpr int kMostDrafts = 15;

cudaError_t round_rows(const RoundArgs& round, int first, int cache_sequence, int rows,
                       int32_t* tokens, int32_t* positions, int32_t* slots, int32_t* sequences,
                       Launch launch);
cudaError_t commit(const RoundArgs& round, Launch launch);

/// Scratch that `argmax` and `gumbel_argmax` need: cleared once, left clear by each.
constexpr int64_t argmax_scratch_bytes(int rows) { return rows * 16; }
cudaError_t argmax(const RoundArgs& round, const LogitsArgs& logits, int32_t* ids, void* scratch,
                   Launch launch);
/// choices (rows, 2): the bits of a row's largest logit and its id, counted from `first_id`; for
/// `join_argmax`. Scratch as above.
cudaError_t share_argmax(const float* logits, int rows, int columns, int first_id, int32_t* choices,
                         void* scratch, Launch launch);
/// ids[r] = the best of choices (shares, rows, 2) at row r.
cudaError_t join_argmax(const int32_t* choices, int shares, int rows, int32_t* ids, Launch launch);
cudaError_t gumbel_argmax(const RoundArgs& round, const float* probs, int rows, int first,
                          int32_t* ids, void* scratch, Launch launch);

cudaError_t distribution(const RoundArgs& round, const LogitsArgs& logits, float* probs,
                         Launch launch);
cudaError_t sample(const RoundArgs& round, const float* probs, int rows, int first, Purpose purpose,
                   int32_t* ids, Launch launch);
cudaError_t accept(const RoundArgs& round, Rule rule, int num_drafts, Launch launch);
/// out (S, max_drafts): sum over x of min(p(x), q(x)) at each of the first `num_drafts` drafts.
cudaError_t expected_acceptance(const RoundArgs& round, int num_drafts, float* out, Launch launch);
cudaError_t log_probabilities(const float* logits, int rows, int columns, const int32_t* ids,
                              int top, float* logprobs, int32_t* top_ids, float* top_logprobs,
                              float* logsumexp, Launch launch);

}  // namespace tandem::kernels
