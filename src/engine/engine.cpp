#include "tandem/engine.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <random>
#include <thread>

#include "engine/completion_builder.h"
#include "engine/config_fields.h"
#include "engine/pair_loader.h"
#include "engine/process_pair.h"
#include "engine/request_state.h"
#include "engine/synthetic_check.h"

namespace tandem {
namespace {

static_assert(SamplingParams::kMaxLogprobs == kMaxTopLogprobs);
static_assert(Request::kAuto == kAutoDraftLength);

/// Seeds that tandem draws are exact in every JSON reader, also one whose numbers are float64.
constexpr uint64_t kDrawnSeedMask = (uint64_t{1} << 53) - 1;

uint64_t draw_seed() {
  std::random_device device;
  return ((static_cast<uint64_t>(device()) << 32) | device()) & kDrawnSeedMask;
}

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

DecodeRule rule_of(const SamplingParams& params, const std::string& rejection_sample_method) {
  DecodeRule rule;
  rule.transform.repetition_penalty = params.repetition_penalty;
  rule.transform.presence_penalty = params.presence_penalty;
  rule.transform.frequency_penalty = params.frequency_penalty;
  if (params.temperature == 0.0f) return rule;  // greedy
  rule.transform.temperature = params.temperature;
  rule.transform.top_k = params.top_k;
  rule.transform.top_p = params.top_p;
  rule.transform.min_p = params.min_p;
  rule.kind = rejection_sample_method == "coupled"     ? DecodeRule::Kind::kCoupled
              : rejection_sample_method == "rejection" ? DecodeRule::Kind::kRejection
                                                       : DecodeRule::Kind::kBlock;
  return rule;
}

}  // namespace

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "?";
}

RequestHandle::RequestHandle(std::shared_ptr<State> state) : state_(std::move(state)) {}
std::vector<Completion> RequestHandle::wait() { return state_->wait(); }
bool RequestHandle::done() const { return state_->done(); }
void RequestHandle::cancel() { state_->cancelled = true; }

namespace {

void require_rejection_sample_method(const std::string& method) {
  const Choices known = kRejectionSampleMethods;
  if (std::find(known.begin(), known.end(), method) != known.end()) return;
  throw UsageError("rejection_sample_method is '" + method +
                   "'; expected 'rejection', 'block' or 'coupled'");
}

}  // namespace

/// The loaded pair, the queue, and the one thread that works it off.
class Engine::Impl {
 public:
  Impl(Config config, const EngineOptions& options)
      : config_(options.processes == nullptr
                    ? std::move(config)
                    : config_of_process(std::move(config), *options.processes)),
        pair_(load_pair(config_, options)),
        stats_{0, {}, pair_.memory},
        worker_([this] { work(); }) {}

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      for (const auto& state : queue_) state->cancelled = true;
      if (running_) running_->cancelled = true;
    }
    changed_.notify_all();
    worker_.join();
  }

  std::shared_ptr<RequestHandle::State> submit(Request request) {
    auto state = std::make_shared<RequestHandle::State>();
    check_parameters(request);
    state->prompt = take_prompt(request);
    state->seed = request.params.seed ? *request.params.seed : draw_seed();
    state->num_speculative_tokens =
        request.num_speculative_tokens.value_or(pair_.info.num_speculative_tokens);
    if (!request.synthetic_acceptance_rates.empty()) request.params.ignore_eos = true;
    state->request = std::move(request);
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(state);
    }
    changed_.notify_all();
    return state;
  }

  std::vector<int32_t> tokenize(std::string_view text) const {
    return pair_.tokenizer->encode(text, /*special=*/true);
  }
  std::string detokenize(std::span<const int32_t> ids) const {
    return pair_.tokenizer->decode(ids, /*skip_special=*/true);
  }
  const Config& config() const { return config_; }
  const EngineInfo& info() const { return pair_.info; }
  const MemoryPlan& memory_plan() const { return pair_.plan; }
  EngineStats stats() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  void check_parameters(const Request& request) const {
    request.params.validate();
    if (request.n < 1 || request.n > Request::kMaxCompletions) {
      throw UsageError("n is " + std::to_string(request.n) + "; expected an integer from 1 to " +
                       std::to_string(Request::kMaxCompletions));
    }
    if (request.rejection_sample_method)
      require_rejection_sample_method(*request.rejection_sample_method);
    const int wanted = request.num_speculative_tokens.value_or(0);
    if ((wanted < 0 && wanted != Request::kAuto) || wanted > pair_.info.max_speculative_tokens) {
      throw UsageError("num_speculative_tokens is " + std::to_string(wanted) +
                       "; this engine was set up for 0 to " +
                       std::to_string(pair_.info.max_speculative_tokens) +
                       " (see \"speculation.max_speculative_tokens\")");
    }
    const int k = request.num_speculative_tokens.value_or(pair_.info.num_speculative_tokens);
    check_synthetic_acceptance(request, pair_.info.method,
                               k == Request::kAuto ? pair_.info.max_speculative_tokens : k);
  }

  std::vector<int32_t> take_prompt(Request& request) const {
    std::vector<int32_t> prompt;
    if (const auto* text = std::get_if<std::string>(&request.prompt)) {
      if (text->empty()) throw UsageError("the prompt is empty; give at least one character");
      prompt = tokenize(*text);
    } else {
      prompt = std::move(std::get<std::vector<int32_t>>(request.prompt));
    }
    if (prompt.empty()) throw UsageError("the prompt is empty; give at least one token");
    const int vocab = pair_.main->vocab_size();
    for (const int32_t token : prompt) {
      if (token >= 0 && token < vocab) continue;
      throw UsageError("the prompt holds token id " + std::to_string(token) +
                       "; the main model knows 0 to " + std::to_string(vocab - 1));
    }
    const int context = pair_.info.max_model_len;
    if (std::cmp_greater_equal(prompt.size(), context)) {
      throw UsageError(
          "the prompt has " + std::to_string(prompt.size()) + " tokens, the context " +
          std::to_string(context) + ": at most " + std::to_string(context - 1) +
          " leave room for an answer; shorten the prompt or raise \"main.max_model_len\"");
    }
    return prompt;
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;  // stopping, and every request has been told
      running_ = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      try {
        running_->complete(run(*running_));
      } catch (...) {
        running_->fail(std::current_exception());
      }
      lock.lock();
      // The request may own what its caller captured: its end must not meet the engine's lock.
      auto ended = std::move(running_);
      lock.unlock();
      ended.reset();
      lock.lock();
    }
  }

  std::vector<Completion> run(const RequestHandle::State& state) {
    std::vector<Completion> completions;
    bool prefilled = false;
    // A cancelled request ends with the completions it had begun, and at least one.
    for (int i = 0; i < state.request.n && (i == 0 || !state.cancelled); ++i) {
      completions.push_back(complete(state, i, prefilled));
      const std::lock_guard lock(mutex_);
      ++stats_.num_completions;
      stats_.total += completions.back().stats;
    }
    return completions;
  }

  /// One text of a request. @param prefilled whether the decoder holds the prompt already
  Completion complete(const RequestHandle::State& state, int index, bool& prefilled) {
    const SamplingParams& params = state.request.params;
    SpeculativeDecoder& decoder = *pair_.decoder;
    const DecodeSettings settings{
        .rule = rule_of(params, state.request.rejection_sample_method.value_or(
                                    config_.speculation.rejection_sample_method)),
        .seed = state.seed + static_cast<uint64_t>(index),
        .num_speculative_tokens = state.num_speculative_tokens,
        .logprobs = params.logprobs,
        .expected_acceptance = state.request.measure_expected_acceptance,
        .synthetic_acceptance_rates = state.request.synthetic_acceptance_rates};
    const Stopwatch watch;
    CompletionBuilder builder(*pair_.tokenizer, pair_.eos_token_ids, state.prompt, params, index,
                              settings.seed, state.request.on_text);
    if (state.cancelled) return builder.finish(FinishReason::kCancelled);
    if (prefilled) {
      decoder.restart(settings);
    } else {
      decoder.start(state.prompt, settings);
      prefilled = true;
    }
    while (!builder.ended() && decoder.remaining_positions() > 0) {
      if (state.cancelled) return builder.finish(FinishReason::kCancelled);
      const RoundResult& round = decoder.round(builder.tokens_left());
      builder.prefilled(decoder.prefill_seconds());
      builder.take(round, watch.seconds());
    }
    return builder.finish(FinishReason::kLength);
  }

  const Config config_;
  LoadedPair pair_;    ///< the decoder is the worker's; the rest is not changed after loading
  EngineStats stats_;  ///< behind the mutex
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<RequestHandle::State>> queue_;
  std::shared_ptr<RequestHandle::State> running_;
  bool stopping_ = false;
  std::thread worker_;  ///< last, so that it starts when everything else is there
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

std::unique_ptr<Engine> Engine::from_config(const std::filesystem::path& path,
                                            const EngineOptions& options) {
  return from_config(Config::from_file(path), options);
}

std::unique_ptr<Engine> Engine::from_config(const Config& config, const EngineOptions& options) {
  return std::unique_ptr<Engine>(new Engine(std::make_unique<Impl>(config, options)));
}

void serve_engine(const Config& config, const EngineOptions& options) {
  if (options.processes == nullptr || options.processes->rank() == 0) {
    throw UsageError("serve_engine is for processes of a group with a rank above 0");
  }
  serve_pair(config_of_process(config, *options.processes), options);
}

RequestHandle Engine::submit(Request request) {
  return RequestHandle(impl_->submit(std::move(request)));
}

Completion Engine::generate(std::string_view prompt, const SamplingParams& params, OnText on_text) {
  Request request;
  request.prompt = std::string(prompt);
  request.params = params;
  request.on_text = std::move(on_text);
  return submit(std::move(request)).wait().front();
}

Completion Engine::generate(std::span<const int32_t> prompt, const SamplingParams& params,
                            OnText on_text) {
  Request request;
  request.prompt = std::vector<int32_t>(prompt.begin(), prompt.end());
  request.params = params;
  request.on_text = std::move(on_text);
  return submit(std::move(request)).wait().front();
}

std::vector<int32_t> Engine::tokenize(std::string_view text) const { return impl_->tokenize(text); }
std::string Engine::detokenize(std::span<const int32_t> ids) const {
  return impl_->detokenize(ids);
}
const Config& Engine::config() const { return impl_->config(); }
const EngineInfo& Engine::info() const { return impl_->info(); }
const MemoryPlan& Engine::memory_plan() const { return impl_->memory_plan(); }
EngineStats Engine::stats() const { return impl_->stats(); }

}  // namespace tandem
