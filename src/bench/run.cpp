#include "bench/run.h"

#include <algorithm>

#include "bench/text_hash.h"

namespace tandem::bench {
namespace {

constexpr int kWarmUpTokens = 32;
/// Of a timed round's drafts, the share that stands: many rounds in a text, and few rows anew.
constexpr double kTimingAcceptance = 0.5;
/// Keeps the seeds of a conversation's turns apart from those of other texts.
constexpr int kTurnShift = 32;
constexpr std::string_view kBetweenTurns = "\n\n";

}  // namespace

size_t PairUnderTest::plain_of(size_t setting) const {
  const auto found = std::find_if(settings.begin(), settings.end(), [&](const Setting& other) {
    return other.is_plain() && other.temperature == settings[setting].temperature;
  });
  return static_cast<size_t>(found - settings.begin());
}

std::vector<size_t> interleaved_order(size_t prompt, int repeat, size_t settings) {
  const size_t turn = prompt + static_cast<size_t>(repeat);
  std::vector<size_t> order(settings);
  for (size_t i = 0; i < settings; ++i) order[i] = (i + turn) % settings;
  const bool backwards = (prompt / settings + static_cast<size_t>(repeat)) % 2 != 0;
  if (backwards) std::reverse(order.begin(), order.end());
  return order;
}

PairRunner::PairRunner(Engine& engine, const PairUnderTest& pair,
                       const std::vector<Prompt>& prompts, const RunOptions& options)
    : engine_(engine), pair_(pair), prompts_(prompts), options_(options) {}

std::string PairRunner::turn_text(size_t prompt, size_t turn) const {
  std::string text = options_.prompt_template;
  const size_t mark = text.find(kPromptMark);
  return text.replace(mark, std::string_view(kPromptMark).size(), prompts_[prompt].turns[turn]);
}

bool PairRunner::fits_text(const std::string& text) const {
  return std::cmp_less(engine_.tokenize(text).size(), engine_.info().max_model_len);
}

bool PairRunner::fits(size_t prompt) const { return fits_text(turn_text(prompt, 0)); }

Request PairRunner::request_for(size_t setting, int max_tokens) const {
  const Setting& chosen = pair_.settings[setting];
  Request request;
  request.params = pair_.config.sampling;
  request.params.max_tokens = max_tokens;
  request.params.temperature = chosen.temperature;
  request.params.seed = options_.seed;
  request.num_speculative_tokens = chosen.num_speculative_tokens;
  if (chosen.times_rounds) {
    request.params.ignore_eos = true;
    request.params.stop.clear();
  }
  if (chosen.is_plain()) return request;
  const int k = chosen.num_speculative_tokens;
  if (chosen.times_rounds) {
    request.synthetic_acceptance_rates = acceptance_rates_of_length(1 + kTimingAcceptance * k);
  } else {
    request.synthetic_acceptance_rates = options_.synthetic_rates;
    if (k > 0 && std::cmp_less(k, options_.synthetic_rates.size())) {
      request.synthetic_acceptance_rates.resize(static_cast<size_t>(k));
    }
  }
  if (chosen.temperature == 0) return request;
  request.rejection_sample_method = chosen.rejection_sample_method;
  request.measure_expected_acceptance = request.synthetic_acceptance_rates.empty();
  return request;
}

void PairRunner::warm_up() {
  const auto first = [&] {
    for (size_t i = 0; i < prompts_.size(); ++i) {
      if (fits(i)) return i;
    }
    return prompts_.size();
  }();
  if (first == prompts_.size()) return;
  for (size_t setting = 0; setting < pair_.settings.size(); ++setting) settle(first, setting);
}

void PairRunner::settle(size_t prompt, size_t setting) {
  Request request = request_for(setting, std::min(kWarmUpTokens, pair_.config.sampling.max_tokens));
  request.prompt = turn_text(prompt, 0);
  wait_for(std::move(request));
}

Sample PairRunner::run(size_t prompt, int repeat, size_t setting) {
  Sample sample;
  sample.prompt = prompt;
  sample.repeat = repeat;
  sample.setting = setting;
  sample.hash = kEmptyHash;
  const size_t all = prompts_[prompt].turns.size();
  const size_t turns =
      options_.max_turns > 0 ? std::min(all, static_cast<size_t>(options_.max_turns)) : all;
  const uint64_t number = static_cast<uint64_t>(repeat) * prompts_.size() + prompt;
  std::string text;
  for (size_t turn = 0; turn < turns; ++turn) {
    if (turn > 0) text += kBetweenTurns;
    text += turn_text(prompt, turn);
    if (!fits_text(text)) break;
    Request request = request_for(setting, pair_.config.sampling.max_tokens);
    request.params.seed = options_.seed + number + (static_cast<uint64_t>(turn) << kTurnShift);
    request.prompt = text;
    const Completion completion = wait_for(std::move(request));
    text += completion.text;
    sample.stats += completion.stats;
    sample.hash = token_hash(completion.token_ids, sample.hash);
    ++sample.turns;
  }
  return sample;
}

Completion PairRunner::wait_for(Request request) {
  std::optional<RequestHandle> handle;
  {
    const std::lock_guard lock(mutex_);
    if (cancelled_) throw CancelledError("the benchmark was interrupted");
    handle_ = handle = engine_.submit(std::move(request));
  }
  Completion completion = handle->wait().front();
  const std::lock_guard lock(mutex_);
  handle_.reset();
  // A text that was finished when the interrupt came is whole, and counts.
  if (completion.finish_reason == FinishReason::kCancelled) {
    throw CancelledError("the benchmark was interrupted");
  }
  return completion;
}

void PairRunner::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (handle_) handle_->cancel();
}

}  // namespace tandem::bench
