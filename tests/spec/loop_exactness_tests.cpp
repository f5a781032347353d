// Exactness through the real loop: the joint law of the first tokens of many texts, each made by
// three rounds or more, against the main model's law (DESIGN 10). Significance: 1e-6 a test; seeds
// are fixed, so a run that passes once passes always.

#include "loop.h"
#include "support/catch.h"
#include "support/forwarding_backend.h"

using namespace tandem;
using namespace tandem::test;

namespace {

#ifdef TANDEM_SANITIZED
constexpr int kDraws = 5000;
#else
constexpr int kDraws = 100000;
#endif
constexpr int kSubtleDraws = 100000;  // what a small departure from the law takes to be seen
constexpr int kRounds = 3;

using Kind = DecodeRule::Kind;

/// Random numbers keyed by what `base` and `length` say instead of what the round says.
RoundView keyed_by(RoundView round, const int32_t* base, int32_t* length) {
  round.round_base = base;
  if (length != nullptr) round.length = length;
  return round;
}

/// Every round uses the random numbers of the first one.
class FrozenNumbers final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void sample(const RoundView& round, TensorView probs, int first, RandomPurpose purpose,
              int32_t* ids, Stream& stream) override {
    inner().sample(keyed_by(round, &zero_, &zero_), probs, first, purpose, ids, stream);
  }
  void accept(const RoundView& round, AcceptRule rule, int num_drafts, Stream& stream) override {
    inner().accept(keyed_by(round, &zero_, &zero_), rule, num_drafts, stream);
  }

 private:
  int32_t zero_ = 0;
};

/// The round base is the same in all rounds: positions behind a rejection meet their numbers again.
class ConstantBase final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void sample(const RoundView& round, TensorView probs, int first, RandomPurpose purpose,
              int32_t* ids, Stream& stream) override {
    inner().sample(keyed_by(round, &zero_, nullptr), probs, first, purpose, ids, stream);
  }
  void accept(const RoundView& round, AcceptRule rule, int num_drafts, Stream& stream) override {
    inner().accept(keyed_by(round, &zero_, nullptr), rule, num_drafts, stream);
  }

 private:
  int32_t zero_ = 0;
};

/// Behind a rejection it draws from p instead of from the residual.
class NoResidual final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void accept(const RoundView& round, AcceptRule rule, int num_drafts, Stream& stream) override {
    inner().accept(round, rule, num_drafts, stream);
    const int accepted = *round.count - 1;
    if (accepted == num_drafts) return;
    TensorView p(round.main_probs + accepted * round.vocab, DType::kF32, {1, round.vocab},
                 device());
    inner().sample(round, p, 1 + accepted, RandomPurpose::kResidual, round.output + accepted,
                   stream);
  }
};

/// Accepts every draft that is among the likelier ones: plausible, and wrong.
class Generous final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void accept(const RoundView& round, AcceptRule rule, int num_drafts, Stream& stream) override {
    RoundView flat = round;
    std::vector<float> probs(round.main_probs, round.main_probs + (num_drafts + 1) * round.vocab);
    for (int i = 0; i < num_drafts; ++i) {
      float& p = probs[static_cast<size_t>(i * round.vocab + round.drafts[i])];
      p *= 1.1f;
    }
    flat.main_probs = probs.data();
    inner().accept(flat, rule, num_drafts, stream);
  }
};

}  // namespace

TEST_CASE("the loop follows the main model's law, whatever the drafter", "[exactness]") {
  struct Case {
    DrafterKind drafter;
    DraftQuality quality;
    const char* name;
    bool apart = false;
  };
  const Case c = GENERATE(Case{DrafterKind::kModel, DraftQuality::kEqual, "equal"},
                          Case{DrafterKind::kModel, DraftQuality::kClose, "close"},
                          Case{DrafterKind::kModel, DraftQuality::kClose, "close, apart", true},
                          Case{DrafterKind::kModel, DraftQuality::kDisjoint, "disjoint"},
                          Case{DrafterKind::kNgram, DraftQuality::kClose, "one-hot, n-gram"},
                          Case{DrafterKind::kGuess, DraftQuality::kClose, "one-hot, guess"});
  const Kind kind = GENERATE(Kind::kRejection, Kind::kBlock, Kind::kCoupled);
  const int k = GENERATE(1, 2, 3, 4);
  Loop::Options options;
  options.vocab = 5;
  options.quality = c.quality;
  options.holes = c.quality == DraftQuality::kDisjoint;
  options.drafter = c.drafter;
  options.table_seed = 11;
  options.apart = c.apart;
  Loop loop(std::move(options));
  // Four tokens span several rounds unless nearly all drafts stand; then take one round's and more.
  const int tokens = c.quality == DraftQuality::kEqual ? std::min(k + 2, 5) : 4;
  const ChiSquare test = joint_test(loop, kind, k, tokens, kRounds, kDraws);
  CAPTURE(c.name, name_of(kind), k, test.statistic, test.dof, loop.num_accepted,
          loop.num_draft_tokens);
  CHECK(test.p_value > kSignificance);
  CHECK(loop.num_draft_tokens > 0);
  if (c.quality == DraftQuality::kEqual) CHECK(loop.num_accepted == loop.num_draft_tokens);
  if (c.quality == DraftQuality::kDisjoint) CHECK(loop.num_accepted == 0);
}

TEST_CASE("plain decoding follows the main model's law", "[exactness]") {
  Loop::Options options;
  options.drafter = DrafterKind::kNone;
  Loop loop(std::move(options));
  CHECK(joint_test(loop, Kind::kBlock, 0, 4, kRounds, kDraws).p_value > kSignificance);
}

TEST_CASE("longer drafts, too", "[exactness]") {
  const Kind kind = GENERATE(Kind::kRejection, Kind::kBlock);
  const int k = GENERATE(8, 15);
  Loop::Options options;
  options.vocab = 3;
  options.max_drafts = 15;
  options.quality = DraftQuality::kFar;
  Loop loop(std::move(options));
  const ChiSquare test = joint_test(loop, kind, k, 7, kRounds, kDraws / 4);
  CAPTURE(name_of(kind), k, test.statistic, test.dof);
  CHECK(test.p_value > kSignificance);
}

TEST_CASE("these tests see random numbers that every round uses again", "[exactness][proof]") {
  const Kind kind = GENERATE(Kind::kRejection, Kind::kBlock);
  Loop::Options options;
  options.quality = DraftQuality::kFar;
  options.table_seed = 11;
  Loop loop(std::move(options), std::make_unique<FrozenNumbers>(make_backend(DeviceSpec{}, 1)));
  const ChiSquare test = joint_test(loop, kind, 3, 4, kRounds, kDraws);
  CAPTURE(name_of(kind), test.statistic, test.dof);
  CHECK(test.p_value < kSignificance);
}

TEST_CASE("these tests see numbers used again behind a rejection", "[exactness][proof]") {
  // Only where they were looked at: the rejection rule decides position by position and throws away
  // what lies behind a rejection unseen, while the block rule has weighed all of it.
  Loop::Options options;
  options.quality = DraftQuality::kFar;
  options.table_seed = 11;
  Loop loop(std::move(options), std::make_unique<ConstantBase>(make_backend(DeviceSpec{}, 1)));
  CHECK(joint_test(loop, Kind::kBlock, 3, 4, kRounds, kSubtleDraws).p_value < kSignificance);
  CHECK(joint_test(loop, Kind::kRejection, 3, 4, kRounds, kDraws).p_value > kSignificance);
}

TEST_CASE("these tests see a wrong rule", "[exactness][proof]") {
  const Kind kind = GENERATE(Kind::kRejection, Kind::kBlock);
  const auto inner = [] { return make_backend(DeviceSpec{}, 1); };
  Loop::Options options;
  options.table_seed = 11;
  SECTION("no residual") {
    Loop loop(std::move(options), std::make_unique<NoResidual>(inner()));
    CHECK(joint_test(loop, kind, 3, 4, kRounds, kDraws).p_value < kSignificance);
  }
  SECTION("a tenth too generous") {
    Loop loop(std::move(options), std::make_unique<Generous>(inner()));
    CHECK(joint_test(loop, kind, 3, 4, kRounds, kDraws).p_value < kSignificance);
  }
}
