#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "spec/model_drafter.h"
#include "spec/ngram_drafter.h"
#include "spec/remote_drafter.h"
#include "spec/speculative_decoder.h"
#include "support/chi_square.h"
#include "support/table_model.h"

namespace tandem::test {

/// Chance at which a correct program fails one statistical test.
inline constexpr double kSignificance = 1e-6;

/// A certain drafter that works on the host and proposes without looking: the last token over and
/// over, and in every third round fewer tokens than asked for.
class GuessingDrafter final : public Drafter {
 public:
  explicit GuessingDrafter(Backend& backend) : backend_(backend) {}
  void start(const RoundView&, std::span<const int32_t> prompt, const DecodeRule&,
             Stream&) override {
    prompt_last_ = prompt.back();
    last_ = prompt_last_;
    rounds_ = 0;
  }
  void restart(const DecodeRule&) override {
    last_ = prompt_last_;
    rounds_ = 0;
  }
  int capacity(int, int wanted) const override { return wanted; }
  int draft(const RoundView& round, const DraftRequest& request, Stream& stream) override;
  bool is_certain() const override { return true; }
  bool works_on_host() const override { return true; }
  void observe(std::span<const int32_t> tokens) override { last_ = tokens.back(); }

 private:
  Backend& backend_;
  int32_t prompt_last_ = 0;
  int32_t last_ = 0;
  int rounds_ = 0;
};

/// What drafts in a loop of tables.
enum class DrafterKind { kNone, kModel, kNgram, kGuess };

/// A pair of table models behind the real decoder.
struct Loop {
  struct Options {
    int vocab = 5;
    float spread = 1.0f;
    bool holes = false;
    DraftQuality quality = DraftQuality::kClose;
    DrafterKind drafter = DrafterKind::kModel;
    int max_drafts = 4;
    int max_positions = 64;
    int draft_max_positions = 64;
    int max_rows = 16;
    uint64_t table_seed = 1;
    std::vector<uint8_t> allowed;
    std::unique_ptr<DraftLengthPolicy> policy;
    bool launch_ahead = true;  ///< unless the settings say
    bool apart = false;        ///< the draft model has a device of its own
  };

  explicit Loop(Options options, std::unique_ptr<Backend> backend_in = nullptr);

  /// Rounds until at least `tokens` tokens and `rounds` rounds are done; the first `tokens` tokens.
  /// Restarts the prompt when it is the one of the last call.
  std::vector<int32_t> generate(std::span<const int32_t> prompt, DecodeSettings settings,
                                int tokens, int rounds = 1);

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Backend> draft_backend;  ///< where it has one of its own
  TableModel main;
  TableModel draft;
  bool launch_ahead;
  std::unique_ptr<SpeculativeDecoder> decoder;
  std::vector<int32_t> last_prompt;
  int64_t num_rounds = 0, num_drafts = 0, num_draft_tokens = 0, num_accepted = 0;
};

DecodeSettings settings_of(DecodeRule::Kind kind, int num_speculative_tokens, uint64_t seed = 0,
                           float temperature = 1.0f);
std::string name_of(DecodeRule::Kind kind);

/// Draws `draws` texts with seeds 0, 1, …, and tests the joint law of their first `tokens` tokens
/// against the main model's.
ChiSquare joint_test(Loop& loop, DecodeRule::Kind kind, int num_speculative_tokens, int tokens,
                     int rounds, int draws);

}  // namespace tandem::test
