#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "spec/drafter.h"

namespace tandem {

/// Where each n-gram of a growing text ended last; constant time for each token and size n.
class NgramIndex {
 public:
  /// @param max_tokens the longest text that will be held
  NgramIndex(int n, int max_tokens);
  /// Of the host's memory, whatever the text: at most 16 a token.
  uint64_t bytes() const { return ends_.capacity() * sizeof(int32_t); }

  void clear();
  /// Takes in the n-gram that ends with text.back(). Returns where the same n-gram ended before
  /// that, or -1. `text` must hold all tokens taken in before.
  int insert(std::span<const int32_t> text);

 private:
  size_t n_;
  std::vector<int32_t> ends_;  ///< open addressing: the position of an n-gram's last token, or -1
};

/// Prompt lookup (Saxena 2023): the text's own past as draft. Looks for the longest suffix, of
/// `lookup_max` down to `lookup_min` tokens, that occurred before, takes the most recent occurrence
/// and proposes what followed it there; where the occurrence overlaps the end, the repetition goes
/// on into what is proposed. Works on the host; proposals are certain (q is one-hot).
class NgramDrafter final : public Drafter {
 public:
  /// Host memory of such a drafter, fixed when it is made: for each size n at most 16 bytes a
  /// position of the context, and 4 for the text.
  static uint64_t host_bytes(int lookup_min, int lookup_max, int max_positions);
  uint64_t host_bytes() const;

  /// @param max_positions of the main model
  /// @throws UsageError unless 1 <= lookup_min <= lookup_max
  NgramDrafter(Backend& backend, int lookup_min, int lookup_max, int max_positions);

  void start(const RoundView& round, std::span<const int32_t> prompt, const DecodeRule& rule,
             Stream& stream) override;
  void restart(const DecodeRule& rule) override;
  int capacity(int length, int wanted) const override;
  int draft(const RoundView& round, const DraftRequest& request, Stream& stream) override;
  bool is_certain() const override { return true; }
  bool works_on_host() const override { return true; }
  void observe(std::span<const int32_t> tokens) override;

 private:
  /// Looks up, and remembers, the suffixes of the first `tokens` tokens, one more than before.
  void take_in(size_t tokens);

  Backend& backend_;
  std::vector<NgramIndex> indexes_;  ///< for lookup_max, …, lookup_min
  std::vector<int32_t> text_;
  size_t prompt_tokens_ = 0;
  int match_end_ = -1;   ///< where the longest suffix that occurred before ended there, or -1
  HostBuffer proposal_;  ///< what the copy to the device reads
};

}  // namespace tandem
