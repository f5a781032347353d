#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "model/language_model.h"
#include "spec/drafter.h"
#include "spec/row_buffer.h"

namespace tandem {

/// A small language model as drafter (Leviathan et al. 2022). Greedy where the rule is, `coupled`
/// with the main model's noise, else sampled; the request's transforms apply to it too, and its
/// penalties see what it has drafted.
///
/// Ids are the main model's. Where `allowed` is 0, or the draft has no such id, the probability of
/// drafting it is exactly 0. Committed tokens that the draft does not know still stand in its
/// context: ids beyond its vocabulary as a zero row (`Backend::embed`), ids that mean other bytes
/// to it as what they mean to it. Either costs acceptance, never exactness.
class ModelDrafter final : public Drafter {
 public:
  /// Bytes that it takes beside the model, on the model's device; pure arithmetic, for plans.
  static uint64_t bytes(int max_rows, int main_vocab);

  /// Borrows the model, whose sequence 0 it uses; a caller with several decoders gives each its own
  /// model.
  /// @param allowed 1 for each main id that means the same bytes in the draft (see
  ///        `compare_vocabularies`); ids behind its end are forbidden; empty: all are the same
  /// @throws ModelError when no id is allowed
  ModelDrafter(LanguageModel& model, int main_vocab, std::span<const uint8_t> allowed);

  void start(const RoundView& round, std::span<const int32_t> prompt, const DecodeRule& rule,
             Stream& stream) override;
  void restart(const DecodeRule& rule) override;
  int capacity(int length, int wanted) const override;
  int draft(const RoundView& round, const DraftRequest& request, Stream& stream) override;
  bool is_certain() const override { return false; }
  bool works_on_host() const override { return false; }
  void observe(std::span<const int32_t>) override {}

 private:
  /// Runs what is missing in the cache before the two rows of the round's first pass.
  void catch_up(const RoundView& round, int uncached, Stream& stream);
  void run(const RoundView& round, int num_drafts, Stream& stream);
  /// Draws draft number `index` from the logits (1, n) of the row before it.
  void choose(const RoundView& round, int index, TensorView logits, Stream& stream);

  LanguageModel& model_;
  int main_vocab_;
  DeviceId device_;
  Arena arena_;
  RowBuffer rows_;
  const uint8_t* allowed_ = nullptr;  ///< (V) on the device; null: every id that both have
  DecodeRule rule_;
  std::array<std::unique_ptr<Graph>, kMaxSpeculativeTokens + 1> graphs_;
};

}  // namespace tandem
