#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "bench/dataset.h"
#include "bench/sample.h"
#include "tandem/engine.h"

namespace tandem::bench {

/// One pair of models with one drafter, and the settings that it is to be measured with.
struct PairUnderTest {
  std::string name;
  Config config;                  ///< its sampling is every setting's, but for the temperature
  std::vector<Setting> settings;  ///< plain decoding of each temperature first

  /// The plain setting of the same temperature.
  size_t plain_of(size_t setting) const;
};

/// What every pair has in common.
struct RunOptions {
  int repeats = 1;
  int max_turns = 0;                         ///< of a conversation; 0: all
  uint64_t seed = 0;                         ///< each text has its own, counted from here
  std::string prompt_template = "{prompt}";  ///< of each turn
  /// Acceptance that is made up (Request::synthetic_acceptance_rates), as far as each K allows.
  std::vector<double> synthetic_rates = {};
};

/// Where `{prompt}` stands in a template.
inline constexpr const char* kPromptMark = "{prompt}";

/// Runs prompts on one engine. A conversation's turns follow each other: the context of a turn is
/// everything said before it, generated answers included, with a blank line in front of each
/// further turn. A turn that no longer fits the context ends the conversation.
class PairRunner {
 public:
  /// Borrows all of its arguments.
  PairRunner(Engine& engine, const PairUnderTest& pair, const std::vector<Prompt>& prompts,
             const RunOptions& options);

  /// Whether the first turn leaves room for an answer.
  bool fits(size_t prompt) const;
  /// Runs every setting once for a few tokens, so that the first figures see warm caches.
  void warm_up();
  /// Runs a setting for a few tokens behind a prompt's first turn, so that the next text finds the
  /// caches as its own setting leaves them, not as another one does.
  void settle(size_t prompt, size_t setting);
  /// @throws CancelledError after `cancel`
  Sample run(size_t prompt, int repeat, size_t setting);
  /// Ends the text under way; from any thread.
  void cancel();

 private:
  Request request_for(size_t setting, int max_tokens) const;
  Completion wait_for(Request request);
  std::string turn_text(size_t prompt, size_t turn) const;
  bool fits_text(const std::string& text) const;

  Engine& engine_;
  const PairUnderTest& pair_;
  const std::vector<Prompt>& prompts_;
  const RunOptions& options_;
  std::mutex mutex_;
  bool cancelled_ = false;
  std::optional<RequestHandle> handle_;
};

/// The order in which a prompt's settings run: each prompt begins with another one, so that none is
/// always first, and half of them go the other way round, so that none is always behind the same.
std::vector<size_t> interleaved_order(size_t prompt, int repeat, size_t settings);

}  // namespace tandem::bench
