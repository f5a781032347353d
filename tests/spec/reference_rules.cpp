#include "reference_rules.h"

#include <algorithm>
#include <numeric>

namespace tandem::test {
namespace {

/// (scale p - q)+ and its sum.
std::vector<double> positive_part(const std::vector<double>& p, const std::vector<double>& q,
                                  double scale, double& sum) {
  std::vector<double> rest(p.size());
  for (size_t x = 0; x < p.size(); ++x) rest[x] = std::max(scale * p[x] - q[x], 0.0);
  sum = std::accumulate(rest.begin(), rest.end(), 0.0);
  return rest;
}

std::vector<double> normalised(std::vector<double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& w : weights) w = sum > 0 ? w / sum : 0;
  return weights;
}

}  // namespace

RoundRule rejection_rule(const RoundInput& input) {
  const size_t k = input.drafts.size();
  RoundRule rule;
  double reached = 1, sum = 0;
  for (size_t i = 0; i < k; ++i) {
    const auto d = static_cast<size_t>(input.drafts[i]);
    const double stands = std::min(1.0, input.p[i][d] / input.q[i][d]);
    rule.thresholds.push_back(stands);
    rule.accepted.push_back(reached * (1 - stands));
    rule.next.push_back(normalised(positive_part(input.p[i], input.q[i], 1, sum)));
    reached *= stands;
  }
  rule.accepted.push_back(reached);
  rule.next.push_back(normalised(input.p[k]));
  return rule;
}

RoundRule block_rule(const RoundInput& input) {
  const size_t k = input.drafts.size();
  RoundRule rule;
  std::vector<double> w = {1.0};
  for (size_t i = 0; i < k; ++i) {
    const auto d = static_cast<size_t>(input.drafts[i]);
    w.push_back(std::min(1.0, w[i] * input.p[i][d] / input.q[i][d]));
  }
  for (size_t i = 0; i <= k; ++i) {
    double sum = 0;
    rule.next.push_back(
        normalised(i == k ? input.p[k] : positive_part(input.p[i], input.q[i], w[i], sum)));
    if (i == 0) continue;
    const double denominator = sum + 1 - w[i];
    rule.thresholds.push_back(i == k ? w[k] : denominator > 0 ? sum / denominator : 0.0);
  }
  rule.accepted.assign(k + 1, 0);
  double left = 1;  // no larger i was taken
  for (size_t i = k; i > 0; --i) {
    rule.accepted[i] = left * rule.thresholds[i - 1];
    left *= 1 - rule.thresholds[i - 1];
  }
  rule.accepted[0] = left;
  return rule;
}

double mean_accepted(const RoundRule& rule) {
  double mean = 0;
  for (size_t i = 0; i < rule.accepted.size(); ++i) {
    mean += static_cast<double>(i) * rule.accepted[i];
  }
  return mean;
}

}  // namespace tandem::test
