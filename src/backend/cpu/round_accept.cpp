#include <algorithm>
#include <string>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/round_math.h"

namespace tandem {
namespace {

using round::draw;
using round::round_uniform;
using round::weight_sum;

/// What a rule leaves to the token after the accepted ones: scale * p - q, where positive.
struct DenseResidual {
  const float* p;
  const float* q;
  double scale;
  double operator()(int64_t id) const {
    return std::max(scale * static_cast<double>(p[id]) - static_cast<double>(q[id]), 0.0);
  }
};
/// The same for a certain draft: q is 1 at the drafted id, where scale * p - 1 is never positive.
struct CertainResidual {
  const float* p;
  int64_t drafted;
  double scale;
  double operator()(int64_t id) const {
    return id == drafted ? 0.0 : scale * static_cast<double>(p[id]);
  }
};
struct Plain {
  const float* p;
  double operator()(int64_t id) const { return static_cast<double>(p[id]); }
};

/// One sequence of a round as the rules of DESIGN 5 see it: positions i = 1 … K count from 1 there
/// and from 0 here.
class Judge {
 public:
  Judge(const RoundView& round, int sequence, int num_drafts)
      : round_(round),
        sequence_(sequence),
        num_drafts_(num_drafts),
        vocab_(round.vocab),
        drafts_(round.drafts + int64_t{sequence} * round.max_drafts),
        main_probs_(round.main_probs + int64_t{sequence} * (round.max_drafts + 1) * round.vocab),
        draft_probs_(round.draft_probs == nullptr
                         ? nullptr
                         : round.draft_probs + int64_t{sequence} * round.max_drafts * round.vocab) {
  }

  /// Leviathan et al. 2022, algorithm 1; Chen et al. 2023, algorithm 2.
  int reject() {
    int accepted = 0;
    while (accepted < num_drafts_ &&
           uniform(accepted, RandomPurpose::kAccept) * q_drafted(accepted) < p_drafted(accepted)) {
      ++accepted;
    }
    next_token(accepted, 1.0);
    return accepted;
  }

  /// Sun et al. 2024, algorithm 2. The largest i with eta_i <= h_i is what counts, so the walk goes
  /// down from K and computes no h below it.
  int block() {
    double weights[kMaxSpeculativeTokens + 1];
    weights[0] = 1;
    for (int i = 0; i < num_drafts_; ++i) {
      const double weight = weights[i] * (p_drafted(i) / q_drafted(i));
      weights[i + 1] = weight < 1 ? weight : 1.0;
    }
    int accepted = num_drafts_;
    while (accepted > 0 && !(uniform(accepted - 1, RandomPurpose::kAccept) <=
                             block_threshold(accepted, weights[accepted]))) {
      --accepted;
    }
    next_token(accepted, weights[accepted]);
    return accepted;
  }

 private:
  const float* p(int i) const { return main_probs_ + int64_t{i} * vocab_; }
  const float* q(int i) const { return draft_probs_ + int64_t{i} * vocab_; }
  double p_drafted(int i) const { return static_cast<double>(p(i)[drafts_[i]]); }
  double q_drafted(int i) const {
    return draft_probs_ == nullptr ? 1.0 : static_cast<double>(q(i)[drafts_[i]]);
  }
  /// Keyed by the position that draft i, or the token in its place, has in the text.
  double uniform(int i, RandomPurpose purpose) const {
    return round_uniform(round_, sequence_, round_.length[sequence_] + 1 + i, purpose);
  }

  /// Calls fn with the residual at row i for weight `scale`.
  template <typename Function>
  auto with_residual(int i, double scale, const Function& fn) const {
    if (draft_probs_ == nullptr) return fn(CertainResidual{p(i), drafts_[i], scale});
    return fn(DenseResidual{p(i), q(i), scale});
  }

  /// h_i of block verification for i accepted tokens.
  double block_threshold(int i, double weight) const {
    if (i == num_drafts_) return weight;
    const double residual =
        with_residual(i, weight, [&](const auto& w) { return weight_sum(w, vocab_); });
    return residual > 0 ? residual / (residual + (1 - weight)) : 0;
  }

  /// Writes the accepted drafts and draws the token behind them.
  void next_token(int accepted, double scale) const {
    int32_t* output = round_.output + int64_t{sequence_} * (round_.max_drafts + 1);
    std::copy_n(drafts_, accepted, output);
    const double u = uniform(accepted, RandomPurpose::kResidual);
    const auto draw_from = [&](const auto& w) { return draw(w, vocab_, weight_sum(w, vocab_), u); };
    int32_t token = -1;
    if (accepted < num_drafts_) token = with_residual(accepted, scale, draw_from);
    // Nothing is left only where rounding alone made the rule refuse: p and q are one law there.
    if (token < 0) token = draw_from(Plain{p(accepted)});
    output[accepted] = std::max(token, 0);
    round_.count[sequence_] = accepted + 1;
  }

  const RoundView& round_;
  int sequence_;
  int num_drafts_;
  int64_t vocab_;
  const int32_t* drafts_;
  const float* main_probs_;
  const float* draft_probs_;
};

void accept_exact(const RoundView& round, int sequence, int num_drafts) {
  const int32_t* drafts = round.drafts + int64_t{sequence} * round.max_drafts;
  const int32_t* tokens = round.main_tokens + int64_t{sequence} * (round.max_drafts + 1);
  int32_t* output = round.output + int64_t{sequence} * (round.max_drafts + 1);
  int accepted = 0;
  while (accepted < num_drafts && drafts[accepted] == tokens[accepted]) ++accepted;
  std::copy_n(tokens, accepted + 1, output);
  round.count[sequence] = accepted + 1;
}

}  // namespace

void CpuBackend::accept(const RoundView& round, AcceptRule rule, int num_drafts, Stream&) {
  if (num_drafts < 0 || num_drafts > round.max_drafts || num_drafts > kMaxSpeculativeTokens) {
    throw ShapeError("accept: " + std::to_string(num_drafts) + " drafts, room for " +
                     std::to_string(std::min(round.max_drafts, kMaxSpeculativeTokens)));
  }
  for (int s = 0; s < round.sequences; ++s) {
    switch (rule) {
      case AcceptRule::kExact:
        accept_exact(round, s, num_drafts);
        break;
      case AcceptRule::kRejection:
        Judge(round, s, num_drafts).reject();
        break;
      case AcceptRule::kBlock:
        Judge(round, s, num_drafts).block();
        break;
    }
  }
}

}  // namespace tandem
