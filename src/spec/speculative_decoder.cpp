#include "spec/speculative_decoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "spec/verifier.h"
#include "tandem/error.h"

namespace tandem {
namespace {
constexpr int kSequence = 0;
}

class SpeculativeDecoder::Impl {
 public:
  Impl(LanguageModel& main, std::unique_ptr<Drafter> drafter, int max_drafts,
       std::unique_ptr<DraftLengthPolicy> policy)
      : main_(main),
        drafter_(std::move(drafter)),
        policy_(policy == nullptr ? std::make_unique<FixedLength>() : std::move(policy)),
        state_(main.backend(), round_shape(main, drafter_.get(), max_drafts)),
        verifier_(main, state_, kSequence),
        stream_(main.backend().make_stream()),
        round_begun_(main.backend().make_event()),
        drafted_(main.backend().make_event()),
        verified_(main.backend().make_event()) {
    if (state_.shape().max_drafts >= main.max_logits_rows()) {
      throw ShapeError("rounds of " + std::to_string(state_.shape().max_drafts) +
                       " drafts need the logits of one row more; the main model gives " +
                       std::to_string(main.max_logits_rows()));
    }
    const auto rows = static_cast<size_t>(max_drafts) + 1;
    result_.tokens.reserve(rows);
    prompt_.reserve(static_cast<size_t>(main.max_positions()));
  }

  void start(std::span<const int32_t> prompt, const DecodeSettings& settings) {
    started_ = prefilled_ = false;
    require_valid(prompt);
    prompt_.assign(prompt.begin(), prompt.end());
    begin(settings);
    const auto cached = static_cast<int>(prompt.size()) - 1;
    main_.truncate(kSequence, 0, *stream_);
    main_.reserve(kSequence, cached, *stream_);
    state_.rows().prefill(main_, kSequence, prompt.first(static_cast<size_t>(cached)), *stream_);
    if (drafter_ != nullptr) drafter_->start(prompt_, settings.rule, *stream_);
    prefilled_ = true;
    started_ = true;
  }

  void restart(const DecodeSettings& settings) {
    started_ = false;
    if (!prefilled_) throw UsageError("restart of a decoder that holds no prompt");
    begin(settings);
    if (drafter_ != nullptr) drafter_->restart(settings.rule);
    started_ = true;
  }

  const RoundResult& round(int max_tokens) {
    if (!started_) throw UsageError("a round before the start of a text");
    if (max_tokens < 1 || remaining_positions() < 1) {
      throw UsageError("no room for a token: " + std::to_string(max_tokens) + " asked for, " +
                       std::to_string(remaining_positions()) + " positions left in a context of " +
                       std::to_string(main_.max_positions()));
    }
    launch(choose_num_drafts(max_tokens));
    return read();
  }

  int remaining_positions() const { return main_.max_positions() - (length_ + 1); }

 private:
  /// What start and restart share: everything but the caches.
  void begin(const DecodeSettings& settings) {
    if (settings.logprobs > kMaxTopLogprobs) {
      throw UsageError("at most " + std::to_string(kMaxTopLogprobs) +
                       " log-probabilities per token can be given, not " +
                       std::to_string(settings.logprobs));
    }
    settings_ = settings;
    top_logprobs_ = std::min(settings.logprobs, main_.vocab_size());
    state_.start(prompt_, settings.seed, settings.rule.transform.has_penalties(), *stream_);
    verifier_.start(settings.rule, top_logprobs_, settings.expected_acceptance);
    expected_acceptance_ =
        settings.expected_acceptance && settings.rule.kind != DecodeRule::Kind::kGreedy;
    policy_->start(settings.num_speculative_tokens);
    result_.logprobs.clear();
    result_.expected_acceptance.clear();
    length_ = static_cast<int>(prompt_.size()) - 1;
    uncached_ = 0;
  }

  void require_valid(std::span<const int32_t> prompt) const {
    if (prompt.empty()) throw UsageError("the prompt is empty");
    if (prompt.size() >= static_cast<size_t>(main_.max_positions())) {
      throw UsageError("the prompt has " + std::to_string(prompt.size()) +
                       " tokens; with room for one more the context of " +
                       std::to_string(main_.max_positions()) + " is exceeded");
    }
    for (const int32_t token : prompt) {
      if (token >= 0 && token < main_.vocab_size()) continue;
      throw UsageError("the prompt holds token id " + std::to_string(token) +
                       "; the main model's ids end at " + std::to_string(main_.vocab_size() - 1));
    }
  }

  /// K of the next round: what the policy wants and token limit, context and drafter allow.
  int choose_num_drafts(int max_tokens) {
    if (drafter_ == nullptr) return 0;
    const int room = std::min(max_tokens, remaining_positions()) - 1;
    const int wanted = std::min({policy_->next(), state_.shape().max_drafts, room});
    return wanted <= 0 ? 0 : drafter_->capacity(length_, wanted);
  }

  /// Queues a whole round: draft, verify, accept, commit, and the copy of its result.
  void launch(int num_drafts) {
    main_.reserve(kSequence, length_ + num_drafts + 1, *stream_);
    stream_->record(*round_begun_);
    if (num_drafts > 0) {
      const DraftRequest request{length_, num_drafts, uncached_};
      num_drafts = drafter_->draft(state_.view(), request, *stream_);
      uncached_ = 0;
    } else {
      ++uncached_;
    }
    stream_->record(*drafted_);
    verifier_.verify(num_drafts, *stream_);
    stream_->record(*verified_);
    state_.fetch(top_logprobs_, *stream_);
    if (expected_acceptance_) state_.fetch_expected_acceptance(*stream_);
    result_.num_drafts = num_drafts;
  }

  /// Waits for the round and takes in what it gave.
  const RoundResult& read() {
    stream_->synchronize();
    const auto output = state_.output();
    result_.tokens.assign(output.begin(), output.end());
    result_.num_accepted = static_cast<int>(output.size()) - 1;
    result_.draft_seconds = drafted_->seconds_since(*round_begun_);
    result_.verify_seconds = verified_->seconds_since(*drafted_);
    if (top_logprobs_ >= 0) read_logprobs();
    if (expected_acceptance_) {
      const auto all = state_.expected_acceptances();
      result_.expected_acceptance.assign(all.begin(), all.begin() + result_.num_drafts);
    }
    length_ += static_cast<int>(output.size());
    if (drafter_ != nullptr) {
      drafter_->observe(result_.tokens);
      policy_->observe({result_.num_drafts, result_.num_accepted, result_.draft_seconds,
                        result_.verify_seconds});
    }
    return result_;
  }

  void read_logprobs() {
    result_.logprobs.resize(result_.tokens.size());
    for (size_t i = 0; i < result_.logprobs.size(); ++i) {
      const int row = static_cast<int>(i);
      RoundLogprobs& to = result_.logprobs[i];
      to.logprob = state_.logprob(row);
      to.top.clear();
      for (int rank = 0; rank < top_logprobs_; ++rank) {
        to.top.emplace_back(state_.top_id(row, rank, top_logprobs_),
                            state_.top_logprob(row, rank, top_logprobs_));
      }
    }
  }

  LanguageModel& main_;
  std::unique_ptr<Drafter> drafter_;
  std::unique_ptr<DraftLengthPolicy> policy_;
  RoundState state_;
  Verifier verifier_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Event> round_begun_, drafted_, verified_;

  DecodeSettings settings_;
  std::vector<int32_t> prompt_;
  int top_logprobs_ = -1;
  bool expected_acceptance_ = false;
  int length_ = 0;    ///< the host's copy, as of the last round that was read
  int uncached_ = 0;  ///< rounds without drafts since the last one with some
  bool prefilled_ = false;
  bool started_ = false;
  RoundResult result_;
};

RoundShape SpeculativeDecoder::round_shape(const LanguageModel& main, const Drafter* drafter,
                                           int max_drafts) {
  RoundShape shape;
  shape.max_drafts = drafter == nullptr ? 0 : max_drafts;
  shape.vocab = main.vocab_size();
  shape.max_positions = main.max_positions();
  shape.max_rows = main.max_rows();
  shape.draft_probs = drafter != nullptr && !drafter->is_certain();
  return shape;
}

SpeculativeDecoder::SpeculativeDecoder(LanguageModel& main, std::unique_ptr<Drafter> drafter,
                                       int max_drafts, std::unique_ptr<DraftLengthPolicy> policy)
    : impl_(std::make_unique<Impl>(main, std::move(drafter), max_drafts, std::move(policy))) {}
SpeculativeDecoder::~SpeculativeDecoder() = default;

void SpeculativeDecoder::start(std::span<const int32_t> prompt, const DecodeSettings& settings) {
  impl_->start(prompt, settings);
}
void SpeculativeDecoder::restart(const DecodeSettings& settings) { impl_->restart(settings); }
const RoundResult& SpeculativeDecoder::round(int max_tokens) { return impl_->round(max_tokens); }
int SpeculativeDecoder::remaining_positions() const { return impl_->remaining_positions(); }

}  // namespace tandem
