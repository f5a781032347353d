#include <cuda_runtime_api.h>

#include <algorithm>
#include <string>

#include "backend/cuda/cuda_backend.h"
#include "kernels/round.h"
#include "tandem/error.h"

namespace tandem {
namespace {

kernels::RoundArgs round_args(const RoundView& round) {
  return {.sequences = round.sequences,
          .max_drafts = round.max_drafts,
          .vocab = round.vocab,
          .history_stride = round.history_stride,
          .length = round.length,
          .history = round.history,
          .drafts = round.drafts,
          .draft_probs = round.draft_probs,
          .main_probs = round.main_probs,
          .main_tokens = round.main_tokens,
          .output = round.output,
          .count = round.count,
          .result_slots = round.result_slots,
          .results = round.results,
          .rounds = round.rounds,
          .round_base = round.round_base,
          .seeds = round.seeds,
          .streams = round.streams,
          .output_counts = round.output_counts,
          .prompt_seen = round.prompt_seen};
}

void check_matrix(const RoundView& round, const TensorView& view, const char* what) {
  if (view.dtype() == DType::kF32 && view.shape().rank() == 2 && round.sequences > 0 &&
      view.dim(0) % round.sequences == 0) {
    return;
  }
  throw ShapeError(std::string(what) + " must be float32 (rows, vocab), rows a multiple of " +
                   std::to_string(round.sequences) + ", not " + std::string(name_of(view.dtype())) +
                   " " + view.shape().to_string());
}

void check_probs(const RoundView& round, const TensorView& probs, const char* what) {
  check_matrix(round, probs, what);
  if (probs.dim(1) != round.vocab) {
    throw ShapeError(std::string(what) + " has " + std::to_string(probs.dim(1)) +
                     " columns, the vocabulary " + std::to_string(round.vocab));
  }
}

kernels::LogitsArgs logits_args(const RoundView& round, const TensorView& logits,
                                const SamplingTransform& transform, int prefix,
                                const uint8_t* allowed) {
  if (transform.has_penalties() &&
      (round.output_counts == nullptr || round.prompt_seen == nullptr)) {
    throw ShapeError("penalties need the round's output_counts and prompt_seen");
  }
  return {.logits = logits.as<float>(),
          .rows = static_cast<int>(logits.dim(0)),
          .columns = static_cast<int>(logits.dim(1)),
          .prefix = prefix,
          .allowed = allowed,
          .transform = {.repetition_penalty = transform.repetition_penalty,
                        .presence_penalty = transform.presence_penalty,
                        .frequency_penalty = transform.frequency_penalty,
                        .temperature = transform.temperature,
                        .top_k = transform.top_k,
                        .top_p = transform.top_p,
                        .min_p = transform.min_p,
                        .penalties = transform.has_penalties()}};
}

/// Scratch for this many rows; at least for a widest pass, so that it need not grow later.
void* argmax_scratch(Stream& stream, int64_t rows) {
  const auto most = static_cast<int>(std::max<int64_t>(rows, kernels::kMaxDecodeRows));
  return static_cast<CudaStream&>(stream).scratch(
      Scratch::kRound, static_cast<size_t>(kernels::argmax_scratch_bytes(most)));
}

}  // namespace

void CudaBackend::round_rows(const RoundView& round, int first, int cache_sequence,
                             const Rows& rows, Stream& stream) {
  if (rows.count % round.sequences != 0 || rows.count > rows.tokens.count()) {
    throw ShapeError("round_rows: " + std::to_string(rows.count) + " rows, room for " +
                     std::to_string(rows.tokens.count()) + ", " + std::to_string(round.sequences) +
                     " sequences");
  }
  check(kernels::round_rows(round_args(round), first, cache_sequence, rows.count,
                            rows.tokens.as<int32_t>(), rows.positions.as<int32_t>(),
                            rows.slots.as<int32_t>(), rows.sequences.as<int32_t>(), launch(stream)),
        "round_rows");
}

void CudaBackend::argmax(const RoundView& round, TensorView logits,
                         const SamplingTransform& transform, int prefix, const uint8_t* allowed,
                         int32_t* ids, Stream& stream) {
  check_matrix(round, logits, "argmax: logits");
  const auto args = logits_args(round, logits, transform, prefix, allowed);
  if (args.rows == 0) return;
  void* const scratch = argmax_scratch(stream, args.rows);
  check(kernels::argmax(round_args(round), args, ids, scratch, launch(stream)), "argmax");
}

void CudaBackend::share_argmax(TensorView logits, int first_id, TensorView choices,
                               Stream& stream) {
  check_share(logits, choices);
  const auto rows = static_cast<int>(logits.dim(0));
  if (rows == 0) return;
  check(kernels::share_argmax(logits.as<float>(), rows, static_cast<int>(logits.dim(1)), first_id,
                              choices.as<int32_t>(), argmax_scratch(stream, rows), launch(stream)),
        "share_argmax");
}

void CudaBackend::join_argmax(TensorView choices, int32_t* ids, Stream& stream) {
  check_choices(choices);
  if (choices.dim(1) == 0) return;
  check(kernels::join_argmax(choices.as<int32_t>(), static_cast<int>(choices.dim(0)),
                             static_cast<int>(choices.dim(1)), ids, launch(stream)),
        "join_argmax");
}

void CudaBackend::distribution(const RoundView& round, TensorView logits,
                               const SamplingTransform& transform, int prefix,
                               const uint8_t* allowed, TensorView probs, Stream& stream) {
  check_matrix(round, logits, "distribution: logits");
  check_probs(round, probs, "distribution: probs");
  if (probs.dim(0) != logits.dim(0)) {
    throw ShapeError("distribution: probs " + probs.shape().to_string() + " for logits " +
                     logits.shape().to_string());
  }
  const auto args = logits_args(round, logits, transform, prefix, allowed);
  if (args.rows == 0) return;
  check(kernels::distribution(round_args(round), args, probs.as<float>(), launch(stream)),
        "distribution");
}

void CudaBackend::sample(const RoundView& round, TensorView probs, int first, RandomPurpose purpose,
                         int32_t* ids, Stream& stream) {
  check_probs(round, probs, "sample: probs");
  if (probs.dim(0) == 0) return;
  check(kernels::sample(round_args(round), probs.as<float>(), static_cast<int>(probs.dim(0)), first,
                        static_cast<kernels::Purpose>(purpose), ids, launch(stream)),
        "sample");
}

void CudaBackend::gumbel_argmax(const RoundView& round, TensorView probs, int first, int32_t* ids,
                                Stream& stream) {
  check_probs(round, probs, "gumbel_argmax: probs");
  if (probs.dim(0) == 0) return;
  void* const scratch = argmax_scratch(stream, probs.dim(0));
  check(kernels::gumbel_argmax(round_args(round), probs.as<float>(), static_cast<int>(probs.dim(0)),
                               first, ids, scratch, launch(stream)),
        "gumbel_argmax");
}

void CudaBackend::accept(const RoundView& round, AcceptRule rule, int num_drafts, Stream& stream) {
  if (num_drafts < 0 || num_drafts > round.max_drafts || num_drafts > kernels::kMostDrafts) {
    throw ShapeError("accept: " + std::to_string(num_drafts) + " drafts, room for " +
                     std::to_string(std::min(round.max_drafts, kernels::kMostDrafts)));
  }
  const kernels::Rule device_rule = rule == AcceptRule::kExact       ? kernels::Rule::kExact
                                    : rule == AcceptRule::kRejection ? kernels::Rule::kRejection
                                                                     : kernels::Rule::kBlock;
  check(kernels::accept(round_args(round), device_rule, num_drafts, launch(stream)), "accept");
}

void CudaBackend::expected_acceptance(const RoundView& round, int num_drafts, float* out,
                                      Stream& stream) {
  if (num_drafts < 0 || num_drafts > round.max_drafts) {
    throw ShapeError("expected_acceptance: " + std::to_string(num_drafts) + " drafts, room for " +
                     std::to_string(round.max_drafts));
  }
  if (num_drafts == 0) return;
  check(kernels::expected_acceptance(round_args(round), num_drafts, out, launch(stream)),
        "expected_acceptance");
}

void CudaBackend::commit(const RoundView& round, Stream& stream) {
  check(kernels::commit(round_args(round), launch(stream)), "commit");
}

void CudaBackend::log_probabilities(TensorView logits, const int32_t* ids, int top, float* logprobs,
                                    int32_t* top_ids, float* top_logprobs, float* logsumexp,
                                    Stream& stream) {
  if (logits.dtype() != DType::kF32 || logits.shape().rank() != 2 || top < 0 ||
      top > logits.dim(1)) {
    throw ShapeError("log_probabilities: the top " + std::to_string(top) + " of " +
                     std::string(name_of(logits.dtype())) + " logits " +
                     logits.shape().to_string());
  }
  if (logits.dim(0) == 0) return;
  check(kernels::log_probabilities(logits.as<float>(), static_cast<int>(logits.dim(0)),
                                   static_cast<int>(logits.dim(1)), ids, top, logprobs, top_ids,
                                   top_logprobs, logsumexp, launch(stream)),
        "log_probabilities");
}

}  // namespace tandem
