#include "spec/speculative_decoder.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "spec/synthetic_acceptance.h"
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
        backend_(main.backend()),
        drafter_(std::move(drafter)),
        policy_(policy == nullptr ? std::make_unique<FixedLength>() : std::move(policy)),
        state_(backend_, round_shape(main, drafter_.get(), max_drafts)),
        verifier_(main, state_, kSequence),
        begun_(backend_.make_event()),
        set_up_(backend_.make_event()),
        main_prefilled_(backend_.make_event()),
        draft_prefilled_(backend_.make_event()),
        draft_stream_(backend_.make_stream()),
        main_stream_(backend_.make_stream()),
        copy_stream_(backend_.make_stream()) {
    if (state_.shape().max_drafts >= main.max_logits_rows()) {
      throw ShapeError("rounds of " + std::to_string(state_.shape().max_drafts) +
                       " drafts need the logits of one row more; the main model gives " +
                       std::to_string(main.max_logits_rows()));
    }
    for (Flight& flight : flights_) {
      for (auto* event : {&flight.begun, &flight.drafted, &flight.verified, &flight.fetched}) {
        *event = backend_.make_event();
      }
    }
    result_.tokens.reserve(static_cast<size_t>(max_drafts) + 1);
    prompt_.reserve(static_cast<size_t>(main.max_positions()));
  }

  void start(std::span<const int32_t> prompt, const DecodeSettings& settings) {
    started_ = prefilled_ = false;
    require_valid(prompt);
    prompt_.assign(prompt.begin(), prompt.end());
    begin(settings);
    prefill();
    prefilled_ = started_ = true;
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
    require_room(max_tokens);
    try {
      if (in_flight() == 0) launch(choose_num_drafts(max_tokens));
      if (may_launch_ahead(max_tokens)) launch(choose_num_drafts(max_tokens));
      return read();
    } catch (...) {
      started_ = prefilled_ = false;
      throw;
    }
  }

  int remaining_positions() const { return main_.max_positions() - (length_ + 1); }
  double prefill_seconds() const { return prefill_seconds_; }

 private:
  /// A round on its way, from its launch until the host has read it.
  struct Flight {
    int num_drafts = 0;
    bool captured = false;
    bool beside_prompt = false;
    std::unique_ptr<Event> begun, drafted, verified, fetched;
  };
  /// Where the main cache ends when the next round begins: no one knows before those in flight end.
  struct Length {
    int least = 0;
    int most = 0;
  };

  // The order of work ---------------------------------------------------------------------------

  /// Queues the prompt's passes through both models, side by side. `begin` has queued the text.
  void prefill() {
    const ProfileRange range(backend_, "prefill", length_);
    prefill_pending_ = true;
    main_.truncate(kSequence, 0, *main_stream_);
    main_.reserve(kSequence, length_, *main_stream_);
    draft_stream_->wait(*set_up_);
    if (drafter_ != nullptr) {
      drafter_->start(state_.view(), prompt_, settings_.rule, *draft_stream_);
    }
    draft_stream_->record(*draft_prefilled_);
    state_.rows().prefill(main_, state_.view(), kSequence, length_, *main_stream_);
    main_stream_->record(*main_prefilled_);
    // The draft's passes read the round's length, which the first round changes.
    main_stream_->wait(*draft_prefilled_);
  }

  /// Queues a whole round: draft, verify, accept, commit, and the copy of its result.
  void launch(int num_drafts) {
    const ProfileRange range(backend_, "round", launched_);
    Flight& flight = flight_of(launched_);
    const Length length = next_length();
    main_.reserve(kSequence, length.most + num_drafts + 1, *main_stream_);
    if (num_drafts > 0) {
      const ProfileRange drafting(backend_, "draft", num_drafts);
      draft_stream_->wait(committed());
      draft_stream_->record(*flight.begun);
      const DraftRequest request{length.least, length.most, num_drafts, uncached_};
      num_drafts = drafter_->draft(state_.view(), request, *draft_stream_);
      draft_stream_->record(*flight.drafted);
      main_stream_->wait(*flight.drafted);
      uncached_ = 0;
    } else {
      main_stream_->record(*flight.drafted);
      ++uncached_;
    }
    const ProfileRange verifying(backend_, "verify", num_drafts);
    // What a round may give besides has one place on the device, its tokens one for each flight.
    if ((top_logprobs_ >= 0 || expected_acceptance_) && launched_ > 0) {
      main_stream_->wait(*flight_of(launched_ - 1).fetched);
    }
    if (synthetic_.active() && num_drafts > 0) {
      state_.force_accepted(launched_, synthetic_.accepted(launched_, num_drafts), *main_stream_);
    }
    // A drafter captures when the rule is new, as the verifier does.
    flight.captured = verifier_.verify(num_drafts, *main_stream_);
    flight.beside_prompt = launched_ == 0 && prefill_pending_ && backend_.works_beside_host();
    main_stream_->record(*flight.verified);
    copy_stream_->wait(*flight.verified);
    state_.fetch(launched_, top_logprobs_, expected_acceptance_, *copy_stream_);
    copy_stream_->record(*flight.fetched);
    flight.num_drafts = num_drafts;
    ++launched_;
  }

  /// Waits for the oldest round on its way and takes in what it gave.
  const RoundResult& read() {
    const Flight& flight = flight_of(read_);
    flight.fetched->wait();
    main_.check();
    const RoundState::Result from = state_.result(read_);
    ++read_;
    result_.tokens.assign(from.output.begin(), from.output.end());
    result_.num_drafts = flight.num_drafts;
    result_.num_accepted = static_cast<int>(from.output.size()) - 1;
    result_.draft_seconds =
        flight.num_drafts > 0 ? flight.drafted->seconds_since(*flight.begun) : 0;
    result_.verify_seconds = flight.verified->seconds_since(*flight.drafted);
    if (top_logprobs_ >= 0) take_logprobs(from);
    if (expected_acceptance_) {
      const float* all = from.expected_acceptance;
      result_.expected_acceptance.assign(all, all + result_.num_drafts);
    }
    if (prefill_pending_) {
      prefill_pending_ = false;
      prefill_seconds_ = std::max(main_prefilled_->seconds_since(*begun_),
                                  draft_prefilled_->seconds_since(*begun_));
    }
    length_ += static_cast<int>(from.output.size());
    if (drafter_ != nullptr) {
      drafter_->observe(result_.tokens);
      policy_->observe({result_.num_drafts, result_.num_accepted, result_.draft_seconds,
                        result_.verify_seconds, flight.captured, flight.beside_prompt});
    }
    return result_;
  }

  /// What start and restart share: everything but the caches.
  void begin(const DecodeSettings& settings) {
    if (settings.logprobs > kMaxTopLogprobs) {
      throw UsageError("at most " + std::to_string(kMaxTopLogprobs) +
                       " log-probabilities per token can be given, not " +
                       std::to_string(settings.logprobs));
    }
    // A round that the last text queued in vain ends here.
    for (Stream* stream : {draft_stream_.get(), main_stream_.get(), copy_stream_.get()}) {
      stream->synchronize();
    }
    launched_ = read_ = 0;
    prefill_pending_ = false;
    prefill_seconds_ = 0;
    settings_ = settings;
    top_logprobs_ = std::min(settings.logprobs, main_.vocab_size());
    launch_ahead_ = settings.launch_ahead.value_or(backend_.works_beside_host()) &&
                    (drafter_ == nullptr || !drafter_->works_on_host());
    main_stream_->record(*begun_);
    state_.start(prompt_, settings.seed, settings.rule.transform.has_penalties(), *main_stream_);
    main_stream_->record(*set_up_);
    synthetic_ = SyntheticAcceptance(settings.synthetic_acceptance_rates, settings.seed);
    verifier_.start(settings.rule, top_logprobs_, settings.expected_acceptance,
                    synthetic_.active());
    expected_acceptance_ =
        settings.expected_acceptance && settings.rule.kind != DecodeRule::Kind::kGreedy;
    policy_->start(settings.num_speculative_tokens);
    result_.logprobs.clear();
    result_.expected_acceptance.clear();
    length_ = static_cast<int>(prompt_.size()) - 1;
    uncached_ = 0;
  }

  // Choices -------------------------------------------------------------------------------------

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

  void require_room(int max_tokens) const {
    if (max_tokens < 1 || remaining_positions() < 1) {
      throw UsageError("no room for a token: " + std::to_string(max_tokens) + " asked for, " +
                       std::to_string(remaining_positions()) + " positions left in a context of " +
                       std::to_string(main_.max_positions()));
    }
    if (in_flight() == 0) return;
    const int queued = flight_of(read_).num_drafts + 1;
    if (max_tokens < queued) {
      throw UsageError("a round of up to " + std::to_string(queued) + " tokens is queued; " +
                       std::to_string(max_tokens) +
                       " asked for are fewer than the call before left");
    }
  }

  /// K of the next round: what the policy wants and token limit, context and drafter allow.
  int choose_num_drafts(int max_tokens) {
    if (drafter_ == nullptr) return 0;
    const Length length = next_length();
    const int wanted = std::min(
        {policy_->next(), state_.shape().max_drafts, room_for_drafts(max_tokens, length.most)});
    return wanted <= 0 ? 0 : drafter_->capacity(length.most, wanted);
  }

  /// Whether the next K is the same whatever the rounds in flight give, so that texts do not depend
  /// on when the host reads.
  bool may_launch_ahead(int max_tokens) const {
    if (!launch_ahead_ || in_flight() == kRoundsInFlight) return false;
    const Length length = next_length();
    const int most_drafts = state_.shape().max_drafts;
    if (room_for_drafts(max_tokens, length.most) < most_drafts) return false;
    return drafter_ == nullptr || drafter_->capacity(length.least, most_drafts) ==
                                      drafter_->capacity(length.most, most_drafts);
  }

  /// Drafts that a round may have which begins at `length`, when the text may take `max_tokens`
  /// tokens from the last one read.
  int room_for_drafts(int max_tokens, int length) const {
    const int ahead = length - length_;
    return std::min(max_tokens - ahead, remaining_positions() - ahead) - 1;
  }

  int in_flight() const { return static_cast<int>(launched_ - read_); }
  Flight& flight_of(int64_t number) {
    return flights_[static_cast<size_t>(number % kRoundsInFlight)];
  }
  const Flight& flight_of(int64_t number) const {
    return flights_[static_cast<size_t>(number % kRoundsInFlight)];
  }

  Length next_length() const {
    Length length{length_, length_};
    for (int64_t number = read_; number < launched_; ++number) {
      length.least += 1;
      length.most += flight_of(number).num_drafts + 1;
    }
    return length;
  }

  /// When length and last token are those that the next round begins with.
  const Event& committed() const {
    return launched_ == 0 ? *set_up_ : *flight_of(launched_ - 1).verified;
  }

  void take_logprobs(const RoundState::Result& from) {
    result_.logprobs.resize(result_.tokens.size());
    const auto top = static_cast<size_t>(top_logprobs_);
    for (size_t row = 0; row < result_.logprobs.size(); ++row) {
      RoundLogprobs& to = result_.logprobs[row];
      to.logprob = from.logprobs[row];
      to.top.clear();
      for (size_t i = row * top; i < (row + 1) * top; ++i) {
        to.top.emplace_back(from.top_ids[i], from.top_logprobs[i]);
      }
    }
  }

  LanguageModel& main_;
  Backend& backend_;
  std::unique_ptr<Drafter> drafter_;
  std::unique_ptr<DraftLengthPolicy> policy_;
  RoundState state_;
  Verifier verifier_;

  DecodeSettings settings_;
  SyntheticAcceptance synthetic_;
  std::vector<int32_t> prompt_;
  int top_logprobs_ = -1;
  bool expected_acceptance_ = false;
  bool launch_ahead_ = false;
  int length_ = 0;        ///< the host's copy, as of the last round that was read
  int uncached_ = 0;      ///< rounds without drafts since the last one with some
  int64_t launched_ = 0;  ///< rounds of this text
  int64_t read_ = 0;
  bool prefilled_ = false;
  bool started_ = false;
  bool prefill_pending_ = false;  ///< its time is not known yet
  double prefill_seconds_ = 0;
  RoundResult result_;

  std::array<Flight, kRoundsInFlight> flights_;
  std::unique_ptr<Event> begun_, set_up_, main_prefilled_, draft_prefilled_;
  // Last, so that they end first: a stream's end waits for its work, which uses all of the above.
  std::unique_ptr<Stream> draft_stream_, main_stream_, copy_stream_;
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
double SpeculativeDecoder::prefill_seconds() const { return impl_->prefill_seconds(); }

}  // namespace tandem
