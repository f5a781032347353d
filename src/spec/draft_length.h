#pragma once

namespace tandem {

/// Asks a policy to choose: the K of `DraftLengthPolicy::start` and of a request.
inline constexpr int kAutoDraftLength = -1;

/// What a finished round cost and gave.
struct RoundOutcome {
  int num_drafts = 0;
  int num_accepted = 0;
  double draft_seconds = 0;
  double verify_seconds = 0;
  // For either of them the times are no measure of what other rounds cost.
  bool captured = false;       ///< its passes were captured first
  bool beside_prompt = false;  ///< it ran beside the prompt's passes, and waited for them
};

/// Chooses K, the number of draft tokens of the next round, from rounds whose results the host has
/// read. The decoder lowers its answer to what fits the context, the drafter and the token limit.
/// Every rule stays exact whatever it answers; but if the answers depend on the clock, the text of
/// `rejection` and `block` is no longer a function of the seed alone.
class DraftLengthPolicy {
 public:
  virtual ~DraftLengthPolicy() = default;
  /// A new text begins. @param wanted what the request asks for: 0 … kMaxSpeculativeTokens, or
  /// kAutoDraftLength
  virtual void start(int wanted) = 0;
  /// K of the round to be launched now. Rounds launched before may not have been observed yet.
  virtual int next() = 0;
  /// The outcome of a round, in the order of `next`; its K may be lower than what `next` said.
  virtual void observe(const RoundOutcome& outcome) = 0;
};

/// Always what the request asks for; plain where it leaves the choice.
class FixedLength final : public DraftLengthPolicy {
 public:
  void start(int wanted) override { wanted_ = wanted == kAutoDraftLength ? 0 : wanted; }
  int next() override { return wanted_; }
  void observe(const RoundOutcome&) override {}

 private:
  int wanted_ = 0;
};

}  // namespace tandem
