#pragma once

#include <cstdint>
#include <vector>

#include "backend/round_view.h"

namespace tandem::test {

/// The buffers of a round in host memory, for tests of single ops on the CPU backend.
struct HostRound {
  HostRound(int max_drafts_in, int vocab_in, int history_stride_in = 64)
      : max_drafts(max_drafts_in),
        vocab(vocab_in),
        history_stride(history_stride_in),
        history(static_cast<size_t>(history_stride)),
        drafts(static_cast<size_t>(max_drafts)),
        draft_probs(static_cast<size_t>(max_drafts) * static_cast<size_t>(vocab)),
        main_probs(static_cast<size_t>(max_drafts + 1) * static_cast<size_t>(vocab)),
        main_tokens(static_cast<size_t>(max_drafts) + 1),
        output(static_cast<size_t>(max_drafts) + 1),
        output_counts(static_cast<size_t>(vocab)),
        prompt_seen(static_cast<size_t>(vocab)) {}

  RoundView view() {
    RoundView v;
    v.max_drafts = max_drafts;
    v.vocab = vocab;
    v.history_stride = history_stride;
    v.length = &length;
    v.history = history.data();
    v.drafts = drafts.data();
    v.draft_probs = draft_probs.data();
    v.main_probs = main_probs.data();
    v.main_tokens = main_tokens.data();
    v.output = output.data();
    v.count = &count;
    v.round_base = &length;
    v.seeds = &seed;
    v.streams = &stream;
    v.output_counts = output_counts.data();
    v.prompt_seen = prompt_seen.data();
    return v;
  }

  int max_drafts, vocab, history_stride;
  int32_t length = 0, count = 0, stream = 0;
  uint64_t seed = 0;
  std::vector<int32_t> history, drafts;
  std::vector<float> draft_probs, main_probs;
  std::vector<int32_t> main_tokens, output, output_counts;
  std::vector<uint8_t> prompt_seen;
};

}  // namespace tandem::test
