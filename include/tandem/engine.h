#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tandem/config.h"
#include "tandem/error.h"
#include "tandem/ledger.h"
#include "tandem/plan.h"
#include "tandem/processes.h"
#include "tandem/sampling.h"
#include "tandem/speedup.h"
#include "tandem/stats.h"

namespace tandem {

enum class FinishReason { kStop, kLength, kCancelled };
std::string_view name_of(FinishReason reason);  ///< "stop", "length", "cancelled"

/// Log-probabilities of the main model before any sampling transform.
struct TokenLogprobs {
  int32_t token = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  ///< the most likely ids, descending
};

/// One generated text.
struct Completion {
  int index = 0;  ///< of the `n` completions of a request
  std::string text;
  std::vector<int32_t> token_ids;  ///< the end-of-sequence token included
  std::vector<int32_t> prompt_token_ids;
  FinishReason finish_reason = FinishReason::kLength;
  uint64_t seed = 0;
  std::vector<TokenLogprobs> logprobs;  ///< one per token, when asked for
  Stats stats;
};

/// A piece of text as it becomes final: never half a UTF-8 character, never the beginning of a
/// possible stop string.
struct TextPiece {
  int index = 0;  ///< of the completion
  std::string_view text;
  bool from_draft = false;  ///< the token that completed the piece was proposed by the drafter
};
using OnText = std::function<void(const TextPiece&)>;

struct Request {
  static constexpr int kMaxCompletions = 1 << 16;

  /// Text (tokenised with special tokens recognised and the tokenizer's template applied), or token
  /// ids as they are.
  std::variant<std::string, std::vector<int32_t>> prompt;
  SamplingParams params;
  int n = 1;  ///< completions, at most kMaxCompletions, with seeds seed … seed + n - 1
  /// Draft tokens a round instead of the configuration's, for this request alone: 0 (decodes
  /// plainly) … `EngineInfo::max_speculative_tokens`, or kAuto, which lets the engine choose them
  /// for each round.
  std::optional<int> num_speculative_tokens;
  static constexpr int kAuto = -1;
  /// "rejection", "block" or "coupled" instead of the configuration's, for this request alone.
  std::optional<std::string> rejection_sample_method;
  /// Fill `Stats::expected_acceptance_per_position`, where the rule has probabilities; costs a read
  /// of them each round.
  bool measure_expected_acceptance = false;
  /// Not empty: acceptance is made up, to time a pair whose acceptance is not to be had. [i] is the
  /// share of drafting rounds in which drafts 0 … i all stand (never rising; behind the end none
  /// does); `acceptance_rates_of_length` gives them for a mean. Both models do all their work, but
  /// the text means nothing: it has no end of its own (`ignore_eos` holds), and log-probabilities,
  /// stop strings and expected acceptance are refused beside it. Decided by the seed.
  std::vector<double> synthetic_acceptance_rates;
  OnText on_text;  ///< called on the engine's thread; must not call or own the engine
};

/// A request on its way. Copies refer to the same request. Every method may be called from any
/// thread.
class RequestHandle {
 public:
  /// Waits for the end. @throws what the request failed with (UsageError, DeviceError, …); the
  /// engine stays usable
  std::vector<Completion> wait();
  bool done() const;
  /// Asks the request to end at the next round: the completion under way, or the first one, says
  /// `FinishReason::kCancelled`, and those not begun are left out.
  void cancel();

 private:
  friend class Engine;
  struct State;
  explicit RequestHandle(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

/// What the engine loaded, for people.
struct EngineInfo {
  std::string main_model;  ///< folder
  std::string draft_model;
  std::string method;
  std::string device;
  std::string draft_place;         ///< the draft model's device and why there, for people
  int max_model_len = 0;           ///< prompt and output together, in tokens
  int draft_max_model_len = 0;     ///< beyond it decoding goes on without drafts; 0: no draft model
  int num_speculative_tokens = 0;  ///< K of a request that asks for none, or Request::kAuto
  int max_speculative_tokens = 0;  ///< the largest K that a request may ask for
  /// What rounds cost: the configuration's table, or what was measured for 0 …
  /// max_speculative_tokens drafts when the pair was loaded. Empty where nothing drafts.
  CostTable costs;
  /// Share of the main model's ids that mean the same bytes in the draft.
  double vocabulary_agreement = 1;
  std::vector<std::string> warnings;
};

/// What an engine did so far, and what it holds.
struct EngineStats {
  int64_t num_completions = 0;  ///< ended, cancelled ones included; not those that failed
  Stats total;                  ///< of these completions
  /// Each row of the plan beside what was allocated for it; for what only measurement gives
  /// (context, workspaces, graphs of a GPU) what was measured in the load and its first rounds; 0
  /// where it cannot be told, because other processes gave memory back meanwhile.
  std::vector<MemoryUse> memory;
};

/// What a program may want to know or decide while an engine is made.
struct EngineOptions {
  /// Called while weights are loaded: "draft" or "main", bytes on the device so far and in all.
  std::function<void(std::string_view model, uint64_t done_bytes, uint64_t total_bytes)> on_load;
  /// Asked after each tensor that is loaded, and while waiting for another process's load; true
  /// gives up: everything is freed and from_config throws CancelledError. From several threads, one
  /// at a time.
  std::function<bool()> cancelled;
  /// What engines of one process share, so that none counts memory that another was promised. None:
  /// a ledger of its own, which keeps loads on real devices apart through
  /// `MemoryLedger::default_lock_file`; simulated devices are then this engine's alone.
  std::shared_ptr<MemoryLedger> ledger;
  /// The processes that share the main model: see `join_processes`. This one is rank 0; the others
  /// call `serve_engine`. None: this process alone.
  std::shared_ptr<ProcessGroup> processes;
};

/// A draft/main pair, loaded and ready.
///
/// Thread safety: `submit`, `generate`, `tokenize`, `detokenize`, `info` and `stats` may be called
/// from any thread at the same time. Requests run one after the other in the order of submission.
/// The destructor cancels what is running and waits.
class Engine {
 public:
  /// Plans all memory, reserves it, then loads the draft model and the main model into it.
  /// @throws ConfigError, ModelError, DeviceError; MemoryError before anything was allocated when
  /// the pair does not fit; CancelledError
  static std::unique_ptr<Engine> from_config(const std::filesystem::path& path,
                                             const EngineOptions& options = {});
  static std::unique_ptr<Engine> from_config(const Config& config,
                                             const EngineOptions& options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Checks and queues.
  /// @throws UsageError for what can be seen at once: empty prompt, invalid UTF-8, prompt that
  /// leaves no room in the context, token id outside the vocabulary, parameters out of range
  RequestHandle submit(Request request);

  /// submit + wait, for one completion. The parameters are those given here, whatever
  /// `config().sampling` says.
  Completion generate(std::string_view prompt, const SamplingParams& params = {},
                      OnText on_text = {});
  Completion generate(std::span<const int32_t> prompt, const SamplingParams& params = {},
                      OnText on_text = {});

  /// As `generate` treats a prompt: special tokens recognised, the template applied. @throws
  /// UsageError on invalid UTF-8
  std::vector<int32_t> tokenize(std::string_view text) const;
  std::string detokenize(std::span<const int32_t> ids) const;

  const Config& config() const;
  const EngineInfo& info() const;
  /// What was planned before the load.
  const MemoryPlan& memory_plan() const;
  /// A copy, up to the last completion that ended.
  EngineStats stats() const;

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
