#pragma once

namespace tandem {

/// What a finished round cost and gave.
struct RoundOutcome {
  int num_drafts = 0;
  int num_accepted = 0;
  double draft_seconds = 0;
  double verify_seconds = 0;
};

/// Chooses K, the number of draft tokens of the next round, from rounds whose results the host has
/// read. The decoder lowers its answer to what fits the context, the drafter and the token limit.
/// Every rule stays exact whatever it answers; but if the answers depend on the clock, the text of
/// `rejection` and `block` is no longer a function of the seed alone.
class DraftLengthPolicy {
 public:
  virtual ~DraftLengthPolicy() = default;
  /// A new text begins. @param wanted what the request asks for, 0 … kMaxSpeculativeTokens
  virtual void start(int wanted) = 0;
  virtual int next() = 0;
  virtual void observe(const RoundOutcome& outcome) = 0;
};

/// Always what the request asks for.
class FixedLength final : public DraftLengthPolicy {
 public:
  void start(int wanted) override { wanted_ = wanted; }
  int next() override { return wanted_; }
  void observe(const RoundOutcome&) override {}

 private:
  int wanted_ = 0;
};

}  // namespace tandem
