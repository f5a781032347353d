#include "spec/verifier.h"

#include <string>

#include "tandem/error.h"

namespace tandem {

Verifier::Verifier(LanguageModel& main, RoundState& state, int sequence)
    : main_(main), state_(state), sequence_(sequence) {}

void Verifier::start(const DecodeRule& rule, int top_logprobs, bool expected_acceptance,
                     bool forced) {
  if (rule == rule_ && top_logprobs == top_logprobs_ &&
      expected_acceptance == expected_acceptance_ && forced == forced_) {
    return;
  }
  rule_ = rule;
  top_logprobs_ = top_logprobs;
  expected_acceptance_ = expected_acceptance;
  forced_ = forced;
  for (auto& graph : graphs_) graph.reset();
}

bool Verifier::verify(int num_drafts, Stream& stream) {
  auto& graph = graphs_[static_cast<size_t>(num_drafts)];
  const bool captures = graph == nullptr;
  if (captures) {
    graph = main_.capture(stream, [this, num_drafts, &stream] { run(num_drafts, stream); });
  }
  graph->launch(stream);
  return captures;
}

void Verifier::run(int num_drafts, Stream& stream) {
  Backend& backend = main_.backend();
  const RoundView& round = state_.view();
  const Rows rows = state_.rows().rows(num_drafts + 1);
  backend.round_rows(round, 0, sequence_, rows, stream);
  const TensorView logits = run_main(rows, num_drafts, stream);
  backend.accept(round, accept_rule(num_drafts), num_drafts, stream);
  if (expected_acceptance_ && rule_.kind != DecodeRule::Kind::kGreedy) {
    backend.expected_acceptance(round, num_drafts, state_.expected_acceptance(), stream);
  }
  if (top_logprobs_ >= 0) {
    const auto& to = state_.logprobs();
    backend.log_probabilities(logits, round.output, top_logprobs_, to.logprobs, to.top_ids,
                              to.top_logprobs, to.logsumexp, stream);
  }
  if (forced_ && num_drafts > 0) force(num_drafts, stream);
  backend.commit(round, stream);
}

/// The rule has done its work; now the drafts stand that were said to. The token behind them is the
/// next draft, or what an earlier round left there: an id like any other.
void Verifier::force(int num_drafts, Stream& stream) {
  Backend& backend = main_.backend();
  const RoundView& round = state_.view();
  for (int64_t s = 0; s < round.sequences; ++s) {
    backend.copy(round.output + s * (round.max_drafts + 1), round.drafts + s * round.max_drafts,
                 static_cast<size_t>(num_drafts) * sizeof(int32_t), stream);
  }
  backend.copy(round.count, state_.forced_count(),
               static_cast<size_t>(round.sequences) * sizeof(int32_t), stream);
}

TensorView Verifier::run_main(const Rows& rows, int num_drafts, Stream& stream) {
  const bool greedy = rule_.kind == DecodeRule::Kind::kGreedy;
  if (greedy && !rule_.transform.has_penalties() && top_logprobs_ < 0) {
    main_.forward_argmax(rows, 0, state_.view().main_tokens, stream);
    return {};
  }
  const TensorView logits = main_.forward(rows, 0, stream);  // (K + 1, V)
  choose(logits, num_drafts, stream);
  return logits;
}

void Verifier::choose(TensorView logits, int num_drafts, Stream& stream) {
  Backend& backend = main_.backend();
  const RoundView& round = state_.view();
  constexpr int kPrefix = 0;     // row 0 sees committed tokens alone
  constexpr int kNextToken = 1;  // row r draws the token at length + 1 + r
  if (rule_.kind == DecodeRule::Kind::kGreedy) {
    backend.argmax(round, logits, rule_.transform, kPrefix, nullptr, round.main_tokens, stream);
    return;
  }
  const TensorView probs = state_.main_probs(num_drafts);
  backend.distribution(round, logits, rule_.transform, kPrefix, nullptr, probs, stream);
  if (accept_rule(num_drafts) == AcceptRule::kExact) {
    backend.gumbel_argmax(round, probs, kNextToken, round.main_tokens, stream);
  }
}

AcceptRule Verifier::accept_rule(int num_drafts) const {
  if (rule_.kind == DecodeRule::Kind::kRejection && num_drafts > 0) return AcceptRule::kRejection;
  if (rule_.kind == DecodeRule::Kind::kBlock && num_drafts > 0) return AcceptRule::kBlock;
  return AcceptRule::kExact;
}

}  // namespace tandem
