#include <algorithm>
#include <string>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/round_math.h"

namespace tandem {
namespace {

/// What p and q have in common.
struct Common {
  const float* p;
  const float* q;
  double operator()(int64_t id) const { return static_cast<double>(std::min(p[id], q[id])); }
};

}  // namespace

void CpuBackend::expected_acceptance(const RoundView& round, int num_drafts, float* out, Stream&) {
  if (num_drafts < 0 || num_drafts > round.max_drafts) {
    throw ShapeError("expected_acceptance: " + std::to_string(num_drafts) + " drafts, room for " +
                     std::to_string(round.max_drafts));
  }
  const int64_t drafts = round.max_drafts, vocab = round.vocab;
  for (int64_t s = 0; s < round.sequences; ++s) {
    for (int64_t i = 0; i < num_drafts; ++i) {
      const float* const p = round.main_probs + (s * (drafts + 1) + i) * vocab;
      const int64_t row = s * drafts + i;
      out[row] = round.draft_probs == nullptr
                     ? p[round.drafts[row]]
                     : static_cast<float>(
                           round::weight_sum(Common{p, round.draft_probs + row * vocab}, vocab));
    }
  }
}

}  // namespace tandem
