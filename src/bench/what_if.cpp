#include "bench/what_if.h"

#include <algorithm>

#include "bench/report_text.h"
#include "engine/pair_request.h"
#include "plan/placement.h"
#include "tandem/error.h"

namespace tandem::bench {
namespace {

/// Bytes that a pass of the draft reads when its projections have this format, as they lie on a
/// GPU.
double draft_pass_bytes(Config config, const std::string& quantization) {
  config.draft->quantization = quantization;
  const PairRequest request = pair_request(config);
  const PlannedModel& draft = *request.plan.draft;
  return static_cast<double>(draft.pass_bytes(whole_placement(draft.config), DeviceKind::kCuda));
}

/// The measured setting of this rule with the largest K; null when there is none.
const SettingReport* longest(const PairReport& pair, const Setting& like) {
  const SettingReport* found = nullptr;
  for (const SettingReport& one : pair.settings) {
    const int k = one.setting.num_speculative_tokens;
    if (k <= 0 || one.all.totals.num_drafts == 0 || one.setting.temperature != like.temperature ||
        one.setting.rejection_sample_method != like.rejection_sample_method) {
      continue;
    }
    if (found == nullptr || k > found->setting.num_speculative_tokens) found = &one;
  }
  return found;
}

const SettingReport* measured_at(const PairReport& pair, const Setting& like, int k) {
  Setting setting = like;
  setting.num_speculative_tokens = k;
  const auto found = std::find_if(
      pair.settings.begin(), pair.settings.end(),
      [&](const SettingReport& one) { return one.setting == setting && one.all.num_samples > 0; });
  return found == pair.settings.end() ? nullptr : &*found;
}

/// Tokens of a text, on average.
int64_t mean_tokens(const PairReport& pair, const Setting& like) {
  const SettingReport* const plain = pair.plain_of(like);
  if (plain == nullptr) return 0;
  const Stats& totals = plain->all.totals;
  return totals.num_tokens / std::max<int64_t>(plain->all.num_texts, 1);
}

const CostTable& costs_of(const PairReport& pair, const Setting& like) {
  const auto found =
      std::find_if(pair.timed_costs.begin(), pair.timed_costs.end(), [&](const RoundCosts& timed) {
        return timed.temperature == like.temperature &&
               timed.rejection_sample_method == like.rejection_sample_method;
      });
  return found == pair.timed_costs.end() ? pair.costs : found->costs;
}

WhatIf one_rule(const PairReport& pair, const SettingReport& reference) {
  WhatIf result;
  result.temperature = reference.setting.temperature;
  result.rejection_sample_method = reference.setting.rejection_sample_method;
  result.conditional = reference.all.totals.conditional_acceptance_rate_per_position();
  result.costs = costs_of(pair, reference.setting);
  std::vector<CostTable> costs;
  for (const DraftVariant& variant : pair.variants) {
    result.variants.push_back(variant.name);
    costs.push_back(variant.applied_to(result.costs));
  }
  const int64_t tokens = mean_tokens(pair, reference.setting);
  const int most = result.costs.max_drafts();
  for (int k = 1; k <= most; ++k) {
    WhatIf::Row row{k, measured_at(pair, reference.setting, k), {}};
    const double round_tokens = row.measured != nullptr && row.measured->all.totals.num_drafts > 0
                                    ? row.measured->all.mean_acceptance_length.value
                                    : expected_round_tokens(result.conditional, k);
    for (const CostTable& table : costs) {
      row.ratio_to_plain.push_back(predicted_rate_ratio(table, round_tokens, k, tokens));
    }
    result.rows.push_back(std::move(row));
  }
  return result;
}

}  // namespace

CostTable DraftVariant::applied_to(const CostTable& measured) const {
  const CostTable scaled = with_draft_cost(measured, draft_factor);
  return hidden ? with_hidden_draft(scaled) : scaled;
}

std::optional<double> WhatIf::Row::difference() const {
  if (measured == nullptr || measured->all.ratio_to_plain.value <= 0) return std::nullopt;
  return ratio_to_plain.front() / measured->all.ratio_to_plain.value - 1;
}

std::vector<DraftVariant> draft_variants(const Config& config, const PairReport& pair) {
  if (pair.costs.verify_seconds.size() < 2) return {};
  const char* const basis = !pair.timed_costs.empty()
                                ? "rounds timed in turns with the settings, acceptance made up"
                            : config.speculation.cost_table ? "the cost table that was given"
                                                            : "rounds timed at the load";
  std::vector<DraftVariant> variants = {{"as measured", basis}};
  if (config.speculation.method != "draft_model" || !config.draft) return variants;
  const double stored = draft_pass_bytes(config, config.draft->quantization);
  for (const std::string format : {"fp8", "int4"}) {
    if (format == config.draft->quantization) continue;
    const double factor = draft_pass_bytes(config, format) / stored;
    variants.push_back({format + " draft",
                        "a draft pass takes " + number("%.2f", factor) +
                            " of its time: the bytes it reads over those it reads now",
                        factor});
  }
  variants.push_back({"draft on its own device",
                      "drafting hides behind verification: the larger of both counts", 1, true});
  return variants;
}

std::vector<WhatIf> what_if(const PairReport& pair) {
  std::vector<WhatIf> results;
  if (pair.variants.empty()) return results;
  std::vector<const SettingReport*> references;
  for (const SettingReport& one : pair.settings) {
    const SettingReport* const reference = longest(pair, one.setting);
    if (reference == nullptr ||
        std::find(references.begin(), references.end(), reference) != references.end()) {
      continue;
    }
    references.push_back(reference);
    if (mean_tokens(pair, reference->setting) > 1) {
      results.push_back(one_rule(pair, *reference));
    }
  }
  return results;
}

}  // namespace tandem::bench
