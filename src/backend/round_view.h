#pragma once

#include <cstdint>

#include "core/tensor_view.h"

namespace tandem {

/// No round has more drafts than this (DESIGN 8).
inline constexpr int kMaxSpeculativeTokens = 15;

/// The fixed-address device buffers of one round, as the ops see them. S sequences lead every
/// buffer (S = 1 is a case); K_max is `max_drafts`, V the main model's vocabulary. Owned by
/// spec/RoundState.
///
/// Invariant between rounds: the main cache holds positions [0, length); history[length] is the
/// last token, which no cache holds yet.
struct RoundView {
  int sequences = 1;
  int max_drafts = 0;
  int vocab = 0;
  int history_stride = 0;  ///< positions a sequence may have, plus room for one round

  int32_t* length = nullptr;  ///< (S)
  int32_t* history =
      nullptr;                ///< (S, history_stride) committed tokens by position, prompt included
  int32_t* drafts = nullptr;  ///< (S, K_max) d_1 … d_K
  float* draft_probs =
      nullptr;  ///< (S, K_max, V) what d_i was drawn from; null: every draft was certain (one-hot)
  float* main_probs = nullptr;  ///< (S, K_max + 1, V)
  int32_t* main_tokens =
      nullptr;  ///< (S, K_max + 1) the main model's own choice at each row (greedy, coupled)
  int32_t* output = nullptr;  ///< (S, K_max + 1) accepted tokens, then one more
  int32_t* count = nullptr;   ///< (S) accepted + 1

  /// Rounds that `results` has places for, so that one may be read while the next is at work.
  int result_slots = 0;
  int32_t* results = nullptr;  ///< (result_slots, S * (K_max + 2)) counts, then outputs; null: none
  int32_t* rounds = nullptr;  ///< (S) rounds committed since the text began; unless results is null

  const int32_t* round_base =
      nullptr;  ///< (S) keys the random numbers of rejection and block; normally == length
  const uint64_t* seeds = nullptr;   ///< (S) Philox keys
  const int32_t* streams = nullptr;  ///< (S) sequence number inside the counter (0 … 2^24 - 1)

  int32_t* output_counts =
      nullptr;  ///< (S, V) how often each token was generated; null without penalties
  uint8_t* prompt_seen =
      nullptr;  ///< (S, V) 1 where the prompt holds the token; null without penalties
};

/// Sampling transforms in the order they apply (DESIGN 5): penalties, temperature, top-k, top-p,
/// min-p. Temperature 0 stands for greedy decoding and is handled by `Backend::argmax`, not by
/// `distribution`.
struct SamplingTransform {
  float repetition_penalty =
      1.0f;  ///< divides positive, multiplies negative logits of tokens seen in prompt or output
  float presence_penalty = 0.0f;   ///< subtracted once for each token generated at least once
  float frequency_penalty = 0.0f;  ///< subtracted for each time a token was generated
  float temperature = 1.0f;
  int top_k = 0;       ///< 0: all
  float top_p = 1.0f;  ///< the smallest set of most probable tokens whose probability reaches top_p
  float min_p = 0.0f;  ///< keeps tokens with p >= min_p * max p

  bool has_penalties() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
  bool operator==(const SamplingTransform&) const = default;
};

/// Checks what `Backend::share_argmax` and `join_argmax` are given. @throws ShapeError
void check_share(const TensorView& logits, const TensorView& choices);
void check_choices(const TensorView& choices);

/// How `Backend::accept` decides (DESIGN 5).
enum class AcceptRule : uint8_t {
  kExact,      ///< accept while drafts equal main_tokens, then main_tokens: greedy and coupled
  kRejection,  ///< Leviathan et al. 2022, Chen et al. 2023
  kBlock,      ///< Sun et al. 2024
};

}  // namespace tandem
