#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tandem/config.h"
#include "tandem/error.h"
#include "tandem/sampling.h"
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
  /// Text (tokenised with special tokens recognised and the tokenizer's template applied), or token
  /// ids as they are.
  std::variant<std::string, std::vector<int32_t>> prompt;
  SamplingParams params;
  int n = 1;       ///< completions, with seeds seed … seed + n - 1
  OnText on_text;  ///< called on the engine's thread; must not call the engine
};

/// A request on its way. Copies refer to the same request. Every method may be called from any
/// thread.
class RequestHandle {
 public:
  /// Waits for the end. @throws what the request failed with (UsageError, DeviceError, …); the
  /// engine stays usable
  std::vector<Completion> wait();
  bool done() const;
  /// Asks the request to end at the next round; its completions then say
  /// `FinishReason::kCancelled`.
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
  int max_model_len = 0;
  int draft_max_model_len = 0;
  double vocabulary_agreement =
      1;  ///< share of the main model's ids that mean the same bytes in the draft
  std::vector<std::string> warnings;
};

/// A draft/main pair, loaded and ready.
///
/// Thread safety: `submit`, `generate`, `tokenize`, `detokenize` and `info` may be called from any
/// thread at the same time. Requests run one after the other in the order of submission. The
/// destructor cancels what is running and waits.
class Engine {
 public:
  /// @throws ConfigError, ModelError, MemoryError, DeviceError
  static std::unique_ptr<Engine> from_config(const std::filesystem::path& path);
  static std::unique_ptr<Engine> from_config(const Config& config);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Checks and queues. @throws UsageError for what can be seen at once: empty prompt, bad
  /// parameters, prompt too long
  RequestHandle submit(Request request);

  /// submit + wait, for one completion.
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

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
