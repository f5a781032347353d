#include "spec/round_state.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <type_traits>

#include "core/size.h"
#include "tandem/error.h"

namespace tandem {
namespace {

struct Buffers {
  TensorView length, seeds, streams, history, drafts, draft_probs, main_probs, main_tokens;
  TensorView count, output, results, rounds;
  TensorView output_counts, prompt_seen, logprobs, logsumexp, top_ids, top_logprobs;
  TensorView expected_acceptance, forced_count;
};

/// Every buffer of a round, in the order in which the arena is carved.
/// @param take (dtype, shape) -> TensorView
template <typename Take>
Buffers carve(const RoundShape& shape, Take&& take) {
  const int64_t s = shape.sequences, k = shape.max_drafts, v = shape.vocab;
  Buffers b;
  b.length = take(DType::kI32, Shape{s});
  b.seeds = take(DType::kU64, Shape{s});
  b.streams = take(DType::kI32, Shape{s});
  b.history = take(DType::kI32, Shape{s, shape.history_stride()});
  b.drafts = take(DType::kI32, Shape{s, k});
  b.draft_probs = take(DType::kF32, Shape{s, shape.draft_probs ? k : 0, v});
  b.main_probs = take(DType::kF32, Shape{s, k + 1, v});
  b.main_tokens = take(DType::kI32, Shape{s, k + 1});
  b.count = take(DType::kI32, Shape{s});
  b.output = take(DType::kI32, Shape{s, k + 1});
  b.results = take(DType::kI32, Shape{kRoundsInFlight, s * (k + 2)});
  b.rounds = take(DType::kI32, Shape{s});
  b.output_counts = take(DType::kI32, Shape{s, v});
  b.prompt_seen = take(DType::kU8, Shape{s, v});
  b.logprobs = take(DType::kF32, Shape{s, k + 1});
  b.logsumexp = take(DType::kF32, Shape{s, k + 1});
  b.top_ids = take(DType::kI32, Shape{s, k + 1, kMaxTopLogprobs});
  b.top_logprobs = take(DType::kF32, Shape{s, k + 1, kMaxTopLogprobs});
  b.expected_acceptance = take(DType::kF32, Shape{s, k});
  b.forced_count = take(DType::kI32, Shape{s});
  return b;
}

void require_valid(const RoundShape& shape) {
  constexpr int kSequences = 1;  // of this decoder; the buffers are laid out for more
  if (shape.sequences == kSequences && shape.vocab > 0 && shape.max_positions > 0 &&
      shape.max_drafts >= 0 && shape.max_drafts <= kMaxSpeculativeTokens &&
      shape.max_rows > shape.max_drafts) {
    return;
  }
  throw ShapeError("a round of " + std::to_string(shape.sequences) + " sequences, " +
                   std::to_string(shape.max_drafts) + " drafts (at most " +
                   std::to_string(kMaxSpeculativeTokens) + "), " + std::to_string(shape.vocab) +
                   " tokens, " + std::to_string(shape.max_positions) + " positions, passes of " +
                   std::to_string(shape.max_rows) + " rows");
}

}  // namespace

uint64_t RoundState::bytes(const RoundShape& shape) {
  ArenaSize size;
  carve(shape, [&](DType dtype, const Shape& dims) {
    size.add(dtype, dims);
    return TensorView();
  });
  return size.bytes() + RowBuffer::bytes(shape.max_rows);
}

RoundState::RoundState(Backend& backend, const RoundShape& shape)
    : backend_(backend),
      shape_((require_valid(shape), shape)),
      arena_(backend.memory(), bytes(shape), "round"),
      rows_(arena_, shape.max_rows) {
  const Buffers b =
      carve(shape, [&](DType dtype, const Shape& dims) { return arena_.take(dtype, dims); });
  view_.sequences = shape.sequences;
  view_.max_drafts = shape.max_drafts;
  view_.vocab = shape.vocab;
  view_.history_stride = shape.history_stride();
  view_.length = b.length.as<int32_t>();
  view_.history = b.history.as<int32_t>();
  view_.drafts = b.drafts.as<int32_t>();
  view_.draft_probs = shape.draft_probs ? b.draft_probs.as<float>() : nullptr;
  view_.main_probs = b.main_probs.as<float>();
  view_.main_tokens = b.main_tokens.as<int32_t>();
  view_.count = b.count.as<int32_t>();
  view_.output = b.output.as<int32_t>();
  view_.result_slots = kRoundsInFlight;
  view_.results = b.results.as<int32_t>();
  view_.rounds = b.rounds.as<int32_t>();
  view_.round_base = view_.length;
  view_.seeds = b.seeds.as<uint64_t>();
  view_.streams = b.streams.as<int32_t>();
  main_probs_ = b.main_probs;
  seeds_ = b.seeds.as<uint64_t>();
  streams_ = b.streams.as<int32_t>();
  output_counts_ = b.output_counts.as<int32_t>();
  prompt_seen_ = b.prompt_seen.as<uint8_t>();
  logprobs_ = {b.logprobs.as<float>(), b.top_ids.as<int32_t>(), b.top_logprobs.as<float>(),
               b.logsumexp.as<float>()};
  expected_acceptance_ = b.expected_acceptance.as<float>();
  forced_count_ = b.forced_count.as<int32_t>();

  carve_host();
}

void RoundState::carve_host() {
  const auto rows = static_cast<size_t>(shape_.max_drafts) + 1;
  size_t used = 0;
  std::byte* base = nullptr;
  const auto take = [&](auto*& pointer, size_t count) {
    using Element = std::remove_reference_t<decltype(*pointer)>;
    if (base != nullptr) pointer = reinterpret_cast<Element*>(base + used);
    used += align_up(count * sizeof(Element), alignof(std::max_align_t));
  };
  const auto carve_all = [&] {
    used = 0;
    for (HostResult& result : host_results_) {
      take(result.counted, static_cast<size_t>(result_ints()));
      take(result.logprobs, rows);
      take(result.top_ids, rows * kMaxTopLogprobs);
      take(result.top_logprobs, rows * kMaxTopLogprobs);
      take(result.expected_acceptance, static_cast<size_t>(shape_.max_drafts));
      take(result.forced_count, static_cast<size_t>(shape_.sequences));
    }
    take(host_start_, 1);
    take(host_prompt_, static_cast<size_t>(shape_.max_positions));
    take(host_prompt_seen_, static_cast<size_t>(shape_.vocab));
  };
  carve_all();
  host_memory_ = backend_.make_host_buffer(used);
  base = host_memory_.as<std::byte>();
  carve_all();
}

void RoundState::start(std::span<const int32_t> prompt, uint64_t seed, bool penalties,
                       Stream& stream) {
  if (prompt.empty() || prompt.size() > static_cast<size_t>(shape_.max_positions)) {
    throw ShapeError("a prompt of " + std::to_string(prompt.size()) + " tokens in a context of " +
                     std::to_string(shape_.max_positions));
  }
  std::copy(prompt.begin(), prompt.end(), host_prompt_);
  *host_start_ = {.seed = seed, .length = static_cast<int32_t>(prompt.size()) - 1, .stream = 0};
  const auto upload = [&](void* to, const void* from, size_t bytes) {
    backend_.copy_to_device(to, from, bytes, stream);
  };
  upload(view_.history, host_prompt_, prompt.size_bytes());
  upload(view_.length, &host_start_->length, sizeof(host_start_->length));
  upload(seeds_, &host_start_->seed, sizeof(host_start_->seed));
  upload(streams_, &host_start_->stream, sizeof(host_start_->stream));
  backend_.fill_zero(view_.rounds, sizeof(*view_.rounds), stream);
  // Rows behind an accepted run keep the ids of earlier rounds: they must be ids from the start.
  const auto outputs = static_cast<size_t>(shape_.max_drafts) + 1;
  backend_.fill_zero(view_.output, outputs * sizeof(int32_t), stream);
  view_.output_counts = penalties ? output_counts_ : nullptr;
  view_.prompt_seen = penalties ? prompt_seen_ : nullptr;
  if (!penalties) return;
  const auto vocab = static_cast<size_t>(shape_.vocab);
  std::fill_n(host_prompt_seen_, vocab, uint8_t{0});
  for (const int32_t token : prompt) {
    if (token >= 0 && token < shape_.vocab) host_prompt_seen_[token] = 1;
  }
  upload(prompt_seen_, host_prompt_seen_, vocab);
  backend_.fill_zero(output_counts_, vocab * sizeof(int32_t), stream);
}

TensorView RoundState::main_probs(int num_drafts) const {
  return main_probs_.reshaped({int64_t{shape_.max_drafts} + 1, shape_.vocab})
      .rows(0, int64_t{num_drafts} + 1);
}

void RoundState::force_accepted(int64_t number, int accepted, Stream& stream) {
  // The round that used this place has been read: no copy reads it any more.
  const HostResult& from = host_result(number);
  const auto sequences = static_cast<size_t>(shape_.sequences);
  std::fill_n(from.forced_count, sequences, accepted + 1);
  backend_.copy_to_device(forced_count_, from.forced_count, sequences * sizeof(int32_t), stream);
}

void RoundState::fetch(int64_t number, int top, bool with_expected_acceptance, Stream& stream) {
  const HostResult& to = host_result(number);
  const auto fetch = [&](void* host, const void* device, size_t bytes) {
    if (bytes > 0) backend_.copy_to_host(host, device, bytes, stream);
  };
  const auto ints = static_cast<size_t>(result_ints());
  const int64_t slot = number % view_.result_slots;
  fetch(to.counted, view_.results + slot * result_ints(), ints * sizeof(int32_t));
  if (with_expected_acceptance) {
    fetch(to.expected_acceptance, expected_acceptance_,
          static_cast<size_t>(shape_.max_drafts) * sizeof(float));
  }
  if (top < 0) return;
  const size_t rows = static_cast<size_t>(shape_.max_drafts) + 1;
  const size_t ids = rows * static_cast<size_t>(top);
  fetch(to.logprobs, logprobs_.logprobs, rows * sizeof(float));
  fetch(to.top_ids, logprobs_.top_ids, ids * sizeof(int32_t));
  fetch(to.top_logprobs, logprobs_.top_logprobs, ids * sizeof(float));
}

RoundState::Result RoundState::result(int64_t number) const {
  const HostResult& from = host_result(number);
  const int32_t count = from.counted[0];
  if (count < 1 || count > shape_.max_drafts + 1) {
    throw DeviceError(to_string(backend_.device()) + ": a round ended with a count of " +
                      std::to_string(count) + " tokens, which cannot be");
  }
  return {.output = {from.counted + shape_.sequences, static_cast<size_t>(count)},
          .logprobs = from.logprobs,
          .top_ids = from.top_ids,
          .top_logprobs = from.top_logprobs,
          .expected_acceptance = from.expected_acceptance};
}

}  // namespace tandem
