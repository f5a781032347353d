#include "spec/remote_drafter.h"

#include <algorithm>
#include <utility>

#include "backend/peer_exchange.h"
#include "core/log.h"
#include "spec/speculative_decoder.h"

namespace tandem {
namespace {

struct Buffers {
  TensorView length, seeds, streams, history, drafts, draft_probs, output_counts, prompt_seen;
};

/// What drafting reads and writes of a round, in the order in which the arena is carved.
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
  b.output_counts = take(DType::kI32, Shape{s, v});
  b.prompt_seen = take(DType::kU8, Shape{s, v});
  return b;
}

}  // namespace

uint64_t RemoteDrafter::bytes(const RoundShape& shape) {
  ArenaSize size;
  carve(shape, [&](DType dtype, const Shape& dims) {
    size.add(dtype, dims);
    return TensorView();
  });
  return size.bytes();
}

RemoteDrafter::RemoteDrafter(LanguageModel& main, Backend& own, const RoundShape& shape,
                             std::unique_ptr<Drafter> inner)
    : main_(main),
      own_(own),
      arena_(own.memory(), bytes(shape), "copy of the round"),
      ready_(main.backend().make_event()),
      done_(own.make_event()),
      inner_(std::move(inner)),
      stream_(own.make_stream()) {
  if (!open_peers(own, main.backend())) {
    log().info("{} and {} do not reach each other's memory: drafts go through the host's",
               to_string(own.device()), to_string(main.backend().device()));
  }
  const Buffers b =
      carve(shape, [&](DType dtype, const Shape& dims) { return arena_.take(dtype, dims); });
  seeds_ = b.seeds.as<uint64_t>();
  streams_ = b.streams.as<int32_t>();
  output_counts_ = b.output_counts.as<int32_t>();
  prompt_seen_ = b.prompt_seen.as<uint8_t>();
  copy_.sequences = shape.sequences;
  copy_.max_drafts = shape.max_drafts;
  copy_.vocab = shape.vocab;
  copy_.history_stride = shape.history_stride();
  copy_.length = b.length.as<int32_t>();
  copy_.history = b.history.as<int32_t>();
  copy_.drafts = b.drafts.as<int32_t>();
  copy_.draft_probs = shape.draft_probs ? b.draft_probs.as<float>() : nullptr;
  copy_.round_base = copy_.length;
  copy_.seeds = seeds_;
  copy_.streams = streams_;
}

std::unique_ptr<Drafter> RemoteDrafter::around(std::unique_ptr<Drafter> drafter, Backend& own,
                                               LanguageModel& main, int max_drafts) {
  if (own.device() == main.backend().device()) return drafter;
  const RoundShape shape = SpeculativeDecoder::round_shape(main, drafter.get(), max_drafts);
  return std::make_unique<RemoteDrafter>(main, own, shape, std::move(drafter));
}

void RemoteDrafter::start(const RoundView& round, std::span<const int32_t> prompt,
                          const DecodeRule& rule, Stream& stream) {
  prompt_length_ = static_cast<int>(prompt.size()) - 1;
  begin_text(rule);
  known_length_ = 0;
  fetch(round, prompt_length_, stream);
  inner_->start(copy_, prompt, rule, *stream_);
  known_length_ = prompt_length_;
  hand_over(stream);
}

void RemoteDrafter::restart(const DecodeRule& rule) {
  begin_text(rule);
  inner_->restart(rule);
}

void RemoteDrafter::begin_text(const DecodeRule& rule) {
  rule_ = rule;
  text_is_new_ = true;
  known_length_ = prompt_length_;
}

int RemoteDrafter::draft(const RoundView& round, const DraftRequest& request, Stream& stream) {
  fetch(round, request.most_length, stream);
  known_length_ = request.length;
  const int drafts = inner_->draft(copy_, request, *stream_);
  for (int64_t s = 0; s < round.sequences; ++s) {
    const int64_t first = s * round.max_drafts;
    copy(round.drafts + first, copy_.drafts + first, drafts, sizeof(int32_t));
    if (copy_.draft_probs == nullptr || rule_.kind == DecodeRule::Kind::kGreedy) continue;
    copy(round.draft_probs + first * round.vocab, copy_.draft_probs + first * round.vocab,
         int64_t{drafts} * round.vocab, sizeof(float));
  }
  hand_over(stream);
  main_.hold(own_.device(), *done_);
  return drafts;
}

void RemoteDrafter::fetch(const RoundView& round, int most_length, Stream& stream) {
  stream.record(*ready_);
  stream_->wait(*ready_);
  if (text_is_new_) fetch_text(round);
  text_is_new_ = false;
  copy(copy_.length, round.length, round.sequences, sizeof(int32_t));
  // The last token stands at `length`, which the host knows between two bounds.
  const int end = std::min(most_length + 1, round.history_stride);
  for (int64_t s = 0; s < round.sequences; ++s) {
    const int64_t first = s * round.history_stride + known_length_;
    copy(copy_.history + first, round.history + first, end - known_length_, sizeof(int32_t));
  }
  if (round.output_counts == nullptr) return;
  copy(output_counts_, round.output_counts, int64_t{round.sequences} * round.vocab,
       sizeof(int32_t));
}

void RemoteDrafter::fetch_text(const RoundView& round) {
  copy(seeds_, round.seeds, round.sequences, sizeof(uint64_t));
  copy(streams_, round.streams, round.sequences, sizeof(int32_t));
  const bool penalties = round.output_counts != nullptr;
  copy_.output_counts = penalties ? output_counts_ : nullptr;
  copy_.prompt_seen = penalties ? prompt_seen_ : nullptr;
  if (!penalties) return;
  copy(prompt_seen_, round.prompt_seen, int64_t{round.sequences} * round.vocab, sizeof(uint8_t));
}

void RemoteDrafter::hand_over(Stream& stream) {
  stream_->record(*done_);
  stream.wait(*done_);
}

}  // namespace tandem
