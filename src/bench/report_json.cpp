#include <nlohmann/json.hpp>

#include "bench/report.h"
#include "bench/stats_json.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

constexpr const char* kFormat = "tandem-bench-report";
constexpr int kFormatVersion = 1;

ordered_json estimate_json(const Estimate& estimate) {
  ordered_json json = {{"value", estimate.value}, {"low", nullptr}, {"high", nullptr}};
  if (estimate.interval) {
    json["low"] = estimate.interval->first;
    json["high"] = estimate.interval->second;
  }
  return json;
}

ordered_json optional_json(const std::optional<Estimate>& estimate) {
  return estimate ? estimate_json(*estimate) : ordered_json();
}

ordered_json list_json(const std::vector<Estimate>& estimates) {
  auto list = ordered_json::array();
  for (const Estimate& estimate : estimates) list.push_back(estimate_json(estimate));
  return list;
}

/// Everything that does not depend on the clock.
ordered_json counts_json(const Stats& totals) {
  ordered_json counts;
  const ordered_json all = stats_to_json(totals);
  for (const auto& [name, value] : all.items()) {
    const bool is_time = name.ends_with("_seconds");
    if (!is_time && name != "expected_acceptance_per_position") counts[name] = value;
  }
  return counts;
}

ordered_json summary_json(const Summary& summary) {
  return {{"num_prompts", summary.num_prompts},
          {"num_samples", summary.num_samples},
          {"num_texts", summary.num_texts},
          {"counts", counts_json(summary.totals)},
          {"acceptance_rate", estimate_json(summary.acceptance_rate)},
          {"mean_acceptance_length", estimate_json(summary.mean_acceptance_length)},
          {"acceptance_rate_per_position", list_json(summary.acceptance_rate_per_position)},
          {"conditional_acceptance_rate_per_position",
           list_json(summary.conditional_acceptance_rate_per_position)},
          {"expected_acceptance", optional_json(summary.expected_acceptance)},
          {"expected_acceptance_per_position", list_json(summary.expected_acceptance_per_position)},
          {"tokens_per_second", estimate_json(summary.tokens_per_second)},
          {"ratio_to_plain", estimate_json(summary.ratio_to_plain)},
          {"time_to_first_token_seconds", estimate_json(summary.time_to_first_token_seconds)},
          {"prefill_seconds", summary.prefill_seconds},
          {"draft_seconds", summary.draft_seconds},
          {"verify_seconds", summary.verify_seconds},
          {"rest_seconds", summary.rest_seconds},
          {"same_text_rate", optional_json(summary.same_text_rate)}};
}

ordered_json setting_json(const SettingReport& report, bool synthetic) {
  const Setting& setting = report.setting;
  ordered_json k = setting.num_speculative_tokens;
  if (setting.num_speculative_tokens == Setting::kAuto) k = "auto";
  ordered_json json = {{"label", setting.label()},
                       {"num_speculative_tokens", k},
                       {"temperature", setting.temperature},
                       {"rejection_sample_method", nullptr},
                       {"same_text_promised", !synthetic && setting.promises_same_text()},
                       {"all", summary_json(report.all)},
                       {"categories", ordered_json::object()}};
  if (!setting.is_plain()) json["rejection_sample_method"] = setting.rejection_sample_method;
  for (const auto& [category, summary] : report.categories) {
    json["categories"][category] = summary_json(summary);
  }
  return json;
}

ordered_json costs_json(const CostTable& costs) {
  if (costs.verify_seconds.empty()) return {};
  return {{"verify_seconds", costs.verify_seconds},
          {"draft_first_seconds", costs.draft_first_seconds},
          {"draft_step_seconds", costs.draft_step_seconds},
          {"draft_catch_up_seconds", costs.draft_catch_up_seconds}};
}

ordered_json what_if_json(const WhatIf& table) {
  ordered_json json = {{"temperature", table.temperature},
                       {"rejection_sample_method", table.rejection_sample_method},
                       {"conditional_acceptance_rate_per_position", table.conditional},
                       {"cost_table", costs_json(table.costs)},
                       {"rows", ordered_json::array()}};
  for (const WhatIf::Row& row : table.rows) {
    ordered_json predicted = ordered_json::object();
    for (size_t i = 0; i < table.variants.size(); ++i) {
      predicted[table.variants[i]] = row.ratio_to_plain[i];
    }
    json["rows"].push_back(
        {{"num_speculative_tokens", row.num_speculative_tokens},
         {"measured_ratio_to_plain", row.measured == nullptr
                                         ? ordered_json()
                                         : estimate_json(row.measured->all.ratio_to_plain)},
         {"predicted_ratio_to_plain", std::move(predicted)},
         {"difference", row.difference() ? ordered_json(*row.difference()) : ordered_json()}});
  }
  return json;
}

ordered_json pair_json(const PairReport& pair, bool synthetic) {
  ordered_json json = {{"name", pair.name},
                       {"method", pair.info.method},
                       {"main_model", pair.info.main_model},
                       {"draft_model", nullptr},
                       {"device", pair.info.device},
                       {"max_model_len", pair.info.max_model_len},
                       {"num_prompts_too_long", pair.num_prompts_too_long},
                       {"cost_table", costs_json(pair.costs)},
                       {"settings", ordered_json::array()},
                       {"draft_variants", ordered_json::object()},
                       {"what_if", ordered_json::array()}};
  if (!pair.info.draft_model.empty()) json["draft_model"] = pair.info.draft_model;
  for (const SettingReport& setting : pair.settings) {
    json["settings"].push_back(setting_json(setting, synthetic));
  }
  for (const DraftVariant& variant : pair.variants) {
    json["draft_variants"][variant.name] = variant.basis;
  }
  for (const WhatIf& table : pair.what_ifs) json["what_if"].push_back(what_if_json(table));
  return json;
}

}  // namespace

std::string report_json(const Report& report) {
  ordered_json json = {{"format", kFormat},
                       {"format_version", kFormatVersion},
                       {"tandem_version", report.version},
                       {"created", report.created},
                       {"interrupted", report.interrupted},
                       {"synthetic", nullptr},
                       {"datasets", ordered_json::array()},
                       {"categories", report.categories},
                       {"options",
                        {{"limit", report.limit},
                         {"max_tokens", report.max_tokens},
                         {"max_turns", report.run.max_turns},
                         {"repeats", report.run.repeats},
                         {"seed", report.run.seed},
                         {"prompt_template", report.run.prompt_template},
                         {"confidence", report.bootstrap.confidence},
                         {"resamples", report.bootstrap.resamples}}},
                       {"definitions", ordered_json::object()},
                       {"pairs", ordered_json::array()}};
  if (!report.synthetic.empty()) json["synthetic"] = report.synthetic;
  for (const DatasetReport& dataset : report.datasets) {
    json["datasets"].push_back({{"name", dataset.name},
                                {"format", dataset.format},
                                {"num_prompts", dataset.num_prompts},
                                {"num_skipped_lines", dataset.num_skipped_lines}});
  }
  for (const Definition& definition : definitions()) {
    json["definitions"][definition.name] = definition.meaning;
  }
  for (const PairReport& pair : report.pairs) {
    json["pairs"].push_back(pair_json(pair, !report.synthetic.empty()));
  }
  constexpr int kIndent = 1;
  return json.dump(kIndent, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace tandem::bench
