#include "spec/synthetic_acceptance.h"

#include <algorithm>
#include <cmath>

#include "core/philox.h"

namespace tandem {
namespace {
constexpr double kGoldenFraction = 0.61803398874989484820;
}

SyntheticAcceptance::SyntheticAcceptance(std::span<const double> rates, uint64_t seed)
    : rates_(rates.begin(), rates.end()) {
  const PhiloxCounter words = philox4x32({}, seed);
  first_ = uniform_open(words[0], words[1]);
}

int SyntheticAcceptance::accepted(int64_t round, int num_drafts) const {
  const double turned = first_ + static_cast<double>(round) * kGoldenFraction;
  const double u = turned - std::floor(turned);
  const size_t drafts = std::min(rates_.size(), static_cast<size_t>(num_drafts));
  int stand = 0;
  for (size_t i = 0; i < drafts && u < rates_[i]; ++i) ++stand;
  return stand;
}

}  // namespace tandem
