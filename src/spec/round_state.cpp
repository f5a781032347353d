#include "spec/round_state.h"

#include <algorithm>
#include <string>

#include "tandem/error.h"

namespace tandem {
namespace {

struct Buffers {
  TensorView length, seeds, streams, history, drafts, draft_probs, main_probs, main_tokens, result;
  TensorView output_counts, prompt_seen, logprobs, logsumexp, top_ids, top_logprobs;
  TensorView expected_acceptance;
};

int history_stride(const RoundShape& shape) { return shape.max_positions + shape.max_drafts + 1; }

/// Every buffer of a round, in the order in which the arena is carved.
/// @param take (dtype, shape) -> TensorView
template <typename Take>
Buffers carve(const RoundShape& shape, Take&& take) {
  const int64_t s = shape.sequences, k = shape.max_drafts, v = shape.vocab;
  Buffers b;
  b.length = take(DType::kI32, Shape{s});
  b.seeds = take(DType::kU64, Shape{s});
  b.streams = take(DType::kI32, Shape{s});
  b.history = take(DType::kI32, Shape{s, history_stride(shape)});
  b.drafts = take(DType::kI32, Shape{s, k});
  b.draft_probs = take(DType::kF32, Shape{s, shape.draft_probs ? k : 0, v});
  b.main_probs = take(DType::kF32, Shape{s, k + 1, v});
  b.main_tokens = take(DType::kI32, Shape{s, k + 1});
  // Counts, then outputs, side by side so that one copy brings both to the host.
  b.result = take(DType::kI32, Shape{s * (k + 2)});
  b.output_counts = take(DType::kI32, Shape{s, v});
  b.prompt_seen = take(DType::kU8, Shape{s, v});
  b.logprobs = take(DType::kF32, Shape{s, k + 1});
  b.logsumexp = take(DType::kF32, Shape{s, k + 1});
  b.top_ids = take(DType::kI32, Shape{s, k + 1, kMaxTopLogprobs});
  b.top_logprobs = take(DType::kF32, Shape{s, k + 1, kMaxTopLogprobs});
  b.expected_acceptance = take(DType::kF32, Shape{s, k});
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
  view_.history_stride = history_stride(shape);
  view_.length = b.length.as<int32_t>();
  view_.history = b.history.as<int32_t>();
  view_.drafts = b.drafts.as<int32_t>();
  view_.draft_probs = shape.draft_probs ? b.draft_probs.as<float>() : nullptr;
  view_.main_probs = b.main_probs.as<float>();
  view_.main_tokens = b.main_tokens.as<int32_t>();
  view_.count = b.result.as<int32_t>();
  view_.output = view_.count + shape.sequences;
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

  const auto rows = static_cast<size_t>(shape.max_drafts) + 1;
  host_prompt_.reserve(static_cast<size_t>(shape.max_positions));
  host_prompt_seen_.resize(static_cast<size_t>(shape.vocab));
  host_result_.resize(rows + 1);
  host_expected_acceptance_.resize(static_cast<size_t>(shape.max_drafts));
  host_logprobs_.resize(rows);
  host_top_ids_.resize(rows * kMaxTopLogprobs);
  host_top_logprobs_.resize(rows * kMaxTopLogprobs);
}

void RoundState::start(std::span<const int32_t> prompt, uint64_t seed, bool penalties,
                       Stream& stream) {
  if (prompt.empty() || prompt.size() > static_cast<size_t>(shape_.max_positions)) {
    throw ShapeError("a prompt of " + std::to_string(prompt.size()) + " tokens in a context of " +
                     std::to_string(shape_.max_positions));
  }
  host_prompt_.assign(prompt.begin(), prompt.end());
  const auto length = static_cast<int32_t>(prompt.size()) - 1;
  constexpr int32_t kStream = 0;
  backend_.copy_to_device(view_.history, host_prompt_.data(), prompt.size_bytes(), stream);
  backend_.copy_to_device(view_.length, &length, sizeof(length), stream);
  backend_.copy_to_device(seeds_, &seed, sizeof(seed), stream);
  backend_.copy_to_device(streams_, &kStream, sizeof(kStream), stream);
  // Rows behind an accepted run keep the ids of earlier rounds: they must be ids from the start.
  backend_.fill_zero(view_.count, host_result_.size() * sizeof(int32_t), stream);
  view_.output_counts = penalties ? output_counts_ : nullptr;
  view_.prompt_seen = penalties ? prompt_seen_ : nullptr;
  if (penalties) {
    std::fill(host_prompt_seen_.begin(), host_prompt_seen_.end(), uint8_t{0});
    for (const int32_t token : prompt) {
      if (token >= 0 && token < shape_.vocab) host_prompt_seen_[static_cast<size_t>(token)] = 1;
    }
    const auto vocab = static_cast<size_t>(shape_.vocab);
    backend_.copy_to_device(prompt_seen_, host_prompt_seen_.data(), vocab, stream);
    backend_.fill_zero(output_counts_, vocab * sizeof(int32_t), stream);
  }
  stream.synchronize();
}

TensorView RoundState::main_probs(int num_drafts) const {
  return main_probs_.reshaped({int64_t{shape_.max_drafts} + 1, shape_.vocab})
      .rows(0, int64_t{num_drafts} + 1);
}

void RoundState::fetch(int top, Stream& stream) {
  backend_.copy_to_host(host_result_.data(), view_.count, host_result_.size() * sizeof(int32_t),
                        stream);
  if (top < 0) return;
  const size_t rows = host_logprobs_.size(), ids = rows * static_cast<size_t>(top);
  backend_.copy_to_host(host_logprobs_.data(), logprobs_.logprobs, rows * sizeof(float), stream);
  if (top == 0) return;
  backend_.copy_to_host(host_top_ids_.data(), logprobs_.top_ids, ids * sizeof(int32_t), stream);
  backend_.copy_to_host(host_top_logprobs_.data(), logprobs_.top_logprobs, ids * sizeof(float),
                        stream);
}

void RoundState::fetch_expected_acceptance(Stream& stream) {
  backend_.copy_to_host(host_expected_acceptance_.data(), expected_acceptance_,
                        host_expected_acceptance_.size() * sizeof(float), stream);
}

std::span<const int32_t> RoundState::output() const {
  const int32_t count = host_result_.front();
  if (count < 1 || count > shape_.max_drafts + 1) {
    throw DeviceError(to_string(backend_.device()) + ": a round ended with a count of " +
                      std::to_string(count) + " tokens, which cannot be");
  }
  return {host_result_.data() + 1, static_cast<size_t>(count)};
}

}  // namespace tandem
