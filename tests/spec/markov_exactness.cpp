#include "markov_exactness.h"

#include <algorithm>
#include <memory>
#include <random>

#include "spec/model_drafter.h"
#include "spec/ngram_drafter.h"
#include "spec/speculative_decoder.h"
#include "support/catch.h"
#include "support/chi_square.h"
#include "support/forwarding_backend.h"
#include "support/markov_model.h"

namespace tandem::test {
namespace {

using Kind = DecodeRule::Kind;

constexpr double kSignificance = 1e-6;
constexpr int kVocab = 5, kMaxDrafts = 8, kMaxRows = 16;
constexpr int kWindow = 3, kCells = kVocab * kVocab * kVocab;
constexpr int kPositions = 1 << 16;
constexpr int kWindows = 100000;

std::vector<float> table(float spread, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(kVocab * kVocab);
  for (float& x : logits) x = normal(random);
  return logits;
}

enum class Draft { kEqual, kClose, kFar, kNgram };

/// A chain, its draft and the decoder on one device.
struct Chain {
  explicit Chain(std::unique_ptr<Backend> backend_in, Draft kind)
      : backend(std::move(backend_in)),
        main(*backend, kVocab, table(1, 3), kPositions, kMaxRows),
        draft(*backend, kVocab, draft_table(kind), kPositions, kMaxRows) {
    constexpr int kLookupMin = 1, kLookupMax = 3;
    std::unique_ptr<Drafter> drafter;
    if (kind == Draft::kNgram) {
      drafter = std::make_unique<NgramDrafter>(*backend, kLookupMin, kLookupMax, kPositions);
    } else {
      drafter = std::make_unique<ModelDrafter>(draft, kVocab, std::span<const uint8_t>{});
    }
    decoder = std::make_unique<SpeculativeDecoder>(main, std::move(drafter), kMaxDrafts);
  }

  static std::vector<float> draft_table(Draft kind) {
    std::vector<float> logits = table(1, 3);
    const std::vector<float> noise = table(kind == Draft::kClose ? 0.5f : 1.5f, 4);
    for (size_t i = 0; i < logits.size(); ++i) {
      if (kind == Draft::kClose) logits[i] += noise[i];
      if (kind == Draft::kFar) logits[i] = noise[i];
    }
    return logits;
  }

  /// The smallest p value over the tokens that a window may follow, times their number.
  double p_value(Kind rule, int k) {
    std::vector<std::vector<int64_t>> counts(kVocab, std::vector<int64_t>(kCells));
    DecodeSettings settings;
    settings.rule.kind = rule;
    settings.num_speculative_tokens = k;
    settings.launch_ahead = true;
    const std::vector<int32_t> prompt = {0, 1};
    for (int windows = 0; windows < kWindows;) {
      decoder->start(prompt, settings);
      ++settings.seed;
      size_t before = static_cast<size_t>(prompt.back()), cell = 0;
      int filled = 0;
      while (windows < kWindows && decoder->remaining_positions() > kMaxDrafts + 1) {
        const RoundResult& round = decoder->round(kPositions);
        num_drafted += round.num_drafts;
        num_accepted += round.num_accepted;
        for (const int32_t token : round.tokens) {
          cell = cell * kVocab + static_cast<size_t>(token);
          if (++filled < kWindow) continue;
          ++counts[before][cell];
          ++windows;
          before = static_cast<size_t>(token);
          filled = 0;
          cell = 0;
        }
      }
    }
    double least = 1;
    for (int token = 0; token < kVocab; ++token) {
      const ChiSquare test = goodness_of_fit(counts[static_cast<size_t>(token)], law(token));
      least = std::min(least, test.p_value * kVocab);
    }
    return least;
  }

  std::vector<double> law(int before) const {
    std::vector<double> joint;
    for (int a = 0; a < kVocab; ++a) {
      for (int b = 0; b < kVocab; ++b) {
        for (int c = 0; c < kVocab; ++c) {
          joint.push_back(main.law_behind(before)[static_cast<size_t>(a)] *
                          main.law_behind(a)[static_cast<size_t>(b)] *
                          main.law_behind(b)[static_cast<size_t>(c)]);
        }
      }
    }
    return joint;
  }

  std::unique_ptr<Backend> backend;
  MarkovModel main, draft;
  std::unique_ptr<SpeculativeDecoder> decoder;
  int64_t num_drafted = 0, num_accepted = 0;
};

/// Every round uses the numbers of the first one.
class FrozenNumbers final : public ForwardingBackend {
 public:
  explicit FrozenNumbers(std::unique_ptr<Backend> inner_in)
      : ForwardingBackend(std::move(inner_in)), zero_(inner().memory(), sizeof(int32_t), "zero") {
    const auto stream = inner().make_stream();
    inner().fill_zero(zero_.data(), sizeof(int32_t), *stream);
    stream->synchronize();
  }
  void sample(const RoundView& round, TensorView probs, int first, RandomPurpose purpose,
              int32_t* ids, Stream& stream) override {
    inner().sample(frozen(round), probs, first, purpose, ids, stream);
  }
  void accept(const RoundView& round, AcceptRule rule, int num_drafts, Stream& stream) override {
    inner().accept(frozen(round), rule, num_drafts, stream);
  }

 private:
  RoundView frozen(RoundView round) const {
    round.length = static_cast<int32_t*>(zero_.data());
    round.round_base = round.length;
    return round;
  }
  DeviceBuffer zero_;
};

/// Verifies at a temperature a twentieth too high.
class TooWarm final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void distribution(const RoundView& round, TensorView logits, const SamplingTransform& transform,
                    int prefix, const uint8_t* allowed, TensorView probs, Stream& stream) override {
    SamplingTransform other = transform;
    if (probs.data() == round.main_probs) other.temperature *= 1.05f;
    inner().distribution(round, logits, other, prefix, allowed, probs, stream);
  }
};

}  // namespace

void check_chain_law(const DeviceSpec& device) {
  struct Case {
    Kind rule;
    int k;
    Draft draft;
  };
  for (const Case& c :
       {Case{Kind::kBlock, 0, Draft::kClose}, Case{Kind::kRejection, 3, Draft::kClose},
        Case{Kind::kBlock, 3, Draft::kClose}, Case{Kind::kBlock, 8, Draft::kFar},
        Case{Kind::kRejection, 1, Draft::kFar}, Case{Kind::kBlock, 4, Draft::kEqual},
        Case{Kind::kCoupled, 3, Draft::kClose}, Case{Kind::kRejection, 2, Draft::kNgram}}) {
    Chain chain(make_backend(device, 1), c.draft);
    const double p = chain.p_value(c.rule, c.k);
    CAPTURE(static_cast<int>(c.rule), c.k, static_cast<int>(c.draft), p, chain.num_accepted,
            chain.num_drafted);
    CHECK(p > kSignificance);
    CHECK((chain.num_drafted > 0) == (c.k > 0));
    if (c.draft == Draft::kEqual) CHECK(chain.num_accepted == chain.num_drafted);
  }
}

void check_chain_proof(const DeviceSpec& device) {
  const Kind rule = Kind::kBlock;
  Chain frozen(std::make_unique<FrozenNumbers>(make_backend(device, 1)), Draft::kFar);
  CHECK(frozen.p_value(rule, 3) < kSignificance);
  Chain too_warm(std::make_unique<TooWarm>(make_backend(device, 1)), Draft::kClose);
  CHECK(too_warm.p_value(rule, 3) < kSignificance);
}

}  // namespace tandem::test
