#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/backend.h"
#include "core/memory.h"
#include "model/language_model.h"
#include "spec/drafter.h"
#include "spec/round_state.h"

namespace tandem {

/// A drafter on another device than the main model's leader. It works on a copy of the round there:
/// what was committed since the last draft is copied over at the head of a round, what it proposes
/// is copied back, by streams and events alone, so that the host waits for neither. Where the
/// devices reach each other's memory the copies go straight from one to the other.
///
/// A rank of the main model on the drafter's device is held back until the drafts are there
/// (LanguageModel::hold): it would only wait for them, on multiprocessors that draft. One thread at
/// a time.
class RemoteDrafter final : public Drafter {
 public:
  /// Bytes that it takes on the drafter's device beside the drafter; pure arithmetic, for plans.
  static uint64_t bytes(const RoundShape& shape);

  /// @param main  the model whose rounds these are; borrowed, as
  /// @param own   the drafter's device
  /// @param shape SpeculativeDecoder::round_shape of the decoder that this drafter is for
  /// @param inner works on `own`
  /// @throws MemoryError, DeviceError
  RemoteDrafter(LanguageModel& main, Backend& own, const RoundShape& shape,
                std::unique_ptr<Drafter> inner);

  /// The drafter itself where it works on the main model's leading device, else within one of
  /// these.
  /// @param own        the drafter's device
  /// @param max_drafts of the decoder that it is for
  static std::unique_ptr<Drafter> around(std::unique_ptr<Drafter> drafter, Backend& own,
                                         LanguageModel& main, int max_drafts);

  void start(const RoundView& round, std::span<const int32_t> prompt, const DecodeRule& rule,
             Stream& stream) override;
  void restart(const DecodeRule& rule) override;
  int capacity(int length, int wanted) const override { return inner_->capacity(length, wanted); }
  int draft(const RoundView& round, const DraftRequest& request, Stream& stream) override;
  bool is_certain() const override { return inner_->is_certain(); }
  bool works_on_host() const override { return inner_->works_on_host(); }
  void observe(std::span<const int32_t> tokens) override { inner_->observe(tokens); }

 private:
  void begin_text(const DecodeRule& rule);
  /// Queues what makes the copy the round that `stream` has arrived at. @param most_length as
  /// DraftRequest's
  void fetch(const RoundView& round, int most_length, Stream& stream);
  /// What does not change during a text.
  void fetch_text(const RoundView& round);
  /// Later work of `stream` finds what was done here.
  void hand_over(Stream& stream);
  void copy(void* to, const void* from, int64_t elements, size_t element_bytes) {
    own_.copy(to, from, static_cast<size_t>(elements) * element_bytes, *stream_);
  }

  LanguageModel& main_;
  Backend& own_;
  Arena arena_;
  RoundView copy_;
  uint64_t* seeds_ = nullptr;
  int32_t* streams_ = nullptr;
  int32_t* output_counts_ = nullptr;
  uint8_t* prompt_seen_ = nullptr;
  DecodeRule rule_;
  bool text_is_new_ = true;
  int prompt_length_ = 0;         ///< history[0, prompt_length_] of the copy holds the prompt
  int known_length_ = 0;          ///< history[0, known_length_) of the copy is final
  std::unique_ptr<Event> ready_;  ///< of the main model's device
  std::unique_ptr<Event> done_;   ///< of this one
  std::unique_ptr<Drafter> inner_;
  std::unique_ptr<Stream> stream_;  ///< ends first: its work uses all of the above
};

}  // namespace tandem
