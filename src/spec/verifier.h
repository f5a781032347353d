#pragma once

#include <array>
#include <memory>

#include "model/language_model.h"
#include "spec/drafter.h"
#include "spec/round_state.h"

namespace tandem {

/// Decides how many draft tokens stand and which token follows them (DESIGN 5).
///
/// Lossless: what it commits follows the main model's distribution after the transforms, for any
/// drafter (Leviathan et al. 2022; Chen et al. 2023; Sun et al. 2024), and is the main model's own
/// greedy or seeded choice for `greedy` and `coupled`. A round without drafts draws with
/// `coupled`'s noise, so that plain decoding gives one text per seed whatever the rule.
/// One thread at a time.
class Verifier {
 public:
  /// Borrows both. @throws ShapeError when the model's passes are too narrow for the state's rounds
  Verifier(LanguageModel& main, RoundState& state, int sequence);

  /// A new text under this rule. @param top_logprobs >= 0: log-probabilities of each token and of
  /// this many most likely ones; -1: none
  /// @param expected_acceptance whether rounds fill `RoundState::expected_acceptance`, where the
  /// rule has probabilities
  /// @param forced whether rounds with drafts end as `RoundState::force_accepted` said before each
  void start(const DecodeRule& rule, int top_logprobs, bool expected_acceptance = false,
             bool forced = false);

  /// Steps 2 to 4 of DESIGN 3: the main model's pass over the last token and the drafts, then
  /// acceptance, then the commit. Captured once per number of drafts and replayed.
  /// @return whether it was captured now
  bool verify(int num_drafts, Stream& stream);

 private:
  void run(int num_drafts, Stream& stream);
  /// The main model's pass and its choice or distribution at each row. @return the logits, empty
  /// where nobody wants them
  TensorView run_main(const Rows& rows, int num_drafts, Stream& stream);
  void choose(TensorView logits, int num_drafts, Stream& stream);
  AcceptRule accept_rule(int num_drafts) const;
  void force(int num_drafts, Stream& stream);

  LanguageModel& main_;
  RoundState& state_;
  int sequence_;
  DecodeRule rule_;
  int top_logprobs_ = -1;
  bool expected_acceptance_ = false;
  bool forced_ = false;
  std::array<std::unique_ptr<Graph>, kMaxSpeculativeTokens + 1> graphs_;
};

}  // namespace tandem
