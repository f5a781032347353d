#include "bench/report_charts.h"

#include <algorithm>

#include "bench/charts.h"
#include "bench/report_text.h"
#include "bench/svg.h"

namespace tandem::bench {
namespace {

/// The settings of a pair that differ in nothing but K: what a line of a picture shows.
struct Family {
  std::string name;
  int colour = 0;
  const PairReport* pair = nullptr;
  std::vector<const SettingReport*> fixed;  ///< by K, ascending
  const SettingReport* automatic = nullptr;

  /// The largest K, or "auto" where no K was fixed.
  const SettingReport& longest() const { return fixed.empty() ? *automatic : *fixed.back(); }
  const SettingReport& fastest() const {
    const SettingReport* best = &longest();
    for (const SettingReport* one : fixed) {
      if (one->all.ratio_to_plain.value > best->all.ratio_to_plain.value) best = one;
    }
    if (automatic != nullptr &&
        automatic->all.ratio_to_plain.value > best->all.ratio_to_plain.value) {
      best = automatic;
    }
    return *best;
  }
};

std::string family_name(const Report& report, const PairReport& pair, const Setting& setting) {
  Setting rule = setting;
  rule.num_speculative_tokens = Setting::kAuto;
  std::string text = rule.label().substr(std::string_view("auto ").size());
  if (report.pairs.size() > 1) text = pair.name + " " + pair.info.method + ", " + text;
  return text;
}

std::vector<Family> families(const Report& report) {
  std::vector<Family> all;
  for (const PairReport& pair : report.pairs) {
    for (const SettingReport& one : pair.settings) {
      if (one.setting.is_plain() || one.all.num_samples == 0) continue;
      const std::string name = family_name(report, pair, one.setting);
      auto found = std::find_if(all.begin(), all.end(), [&](const Family& family) {
        return family.pair == &pair && family.name == name;
      });
      if (found == all.end()) {
        all.push_back({name, static_cast<int>(all.size()), &pair, {}, nullptr});
        found = all.end() - 1;
      }
      if (one.setting.num_speculative_tokens == Setting::kAuto) {
        found->automatic = &one;
      } else {
        found->fixed.push_back(&one);
      }
    }
  }
  for (Family& family : all) {
    std::sort(family.fixed.begin(), family.fixed.end(), [](const auto* a, const auto* b) {
      return a->setting.num_speculative_tokens < b->setting.num_speculative_tokens;
    });
  }
  return all;
}

std::string figure(const std::string& title, const std::string& explanation,
                   const std::string& picture, const std::vector<LegendEntry>& legend) {
  return "<figure><h3>" + escape_html(title) + "</h3><p class=\"muted\">" +
         escape_html(explanation) + "</p>" + picture + draw_legend(legend) + "</figure>\n";
}

std::string marked(const Report& report, const std::string& title) {
  return report.synthetic.empty() ? title : title + " (synthetic)";
}

void widen(double& low, double& high, const Estimate& estimate) {
  low = std::min(low, estimate.interval ? estimate.interval->first : estimate.value);
  high = std::max(high, estimate.interval ? estimate.interval->second : estimate.value);
}

/// The predicted curve of a family, plain decoding included.
std::vector<std::pair<double, Estimate>> predicted(const Family& family) {
  std::vector<std::pair<double, Estimate>> points;
  const Setting& like = family.longest().setting;
  for (const WhatIf& table : family.pair->what_ifs) {
    if (table.temperature != like.temperature ||
        table.rejection_sample_method != like.rejection_sample_method) {
      continue;
    }
    points.push_back({0, {1, {}}});
    for (const WhatIf::Row& row : table.rows) {
      points.push_back(
          {static_cast<double>(row.num_speculative_tokens), {row.ratio_to_plain.front(), {}}});
    }
  }
  return points;
}

}  // namespace

std::string speedup_figure(const Report& report) {
  PointChart chart;
  chart.title = marked(report, "Speed-up over plain decoding by K");
  chart.x_name = "K, draft tokens a round (0: plain decoding)";
  chart.y_low = chart.y_high = 1;
  std::vector<LegendEntry> legend;
  bool any_predicted = false;
  for (const Family& family : families(report)) {
    PointSeries measured{family.name, family.colour, "solid", true, {{0, {1, {}}}}};
    for (const SettingReport* one : family.fixed) {
      measured.points.emplace_back(one->setting.num_speculative_tokens, one->all.ratio_to_plain);
      widen(chart.y_low, chart.y_high, one->all.ratio_to_plain);
    }
    const double last = std::max(measured.points.back().first, 1.0);
    std::vector<std::pair<double, Estimate>> curve = predicted(family);
    for (const auto& point : curve) widen(chart.y_low, chart.y_high, point.second);
    if (family.automatic != nullptr) {
      const Estimate& level = family.automatic->all.ratio_to_plain;
      chart.series.push_back({family.name + ", auto",
                              family.colour,
                              "dotted",
                              false,
                              {{0, {level.value, {}}}, {std::max(last, 1.0), {level.value, {}}}}});
      widen(chart.y_low, chart.y_high, {level.value, {}});
      legend.push_back(
          {family.name + ", auto: " + number("%.2f", level.value) + "×", family.colour, "dotted"});
    }
    if (!curve.empty()) {
      any_predicted = true;
      legend.push_back({family.name + ", predicted", family.colour, "dashed"});
      chart.series.push_back(
          {family.name + ", predicted", family.colour, "dashed", false, std::move(curve)});
    }
    legend.push_back({family.name + ", measured", family.colour, "solid"});
    chart.series.push_back(std::move(measured));
  }
  if (chart.series.empty()) return "";
  return figure(
      chart.title,
      std::string("Tokens per second over those of plain decoding of the same prompts in "
                  "the same run, with 95 % intervals.") +
          (any_predicted ? " Predicted from the costs of a round and the acceptance." : ""),
      draw(chart), legend);
}

std::string position_figure(const Report& report) {
  PointChart chart;
  chart.title = marked(report, "Acceptance by position");
  chart.x_name = "position in the draft";
  chart.y_format = "%.1f";
  std::vector<LegendEntry> legend;
  for (const Family& family : families(report)) {
    const SettingReport& one = family.longest();
    PointSeries solid{family.name + ", unconditional", family.colour, "solid", true, {}};
    PointSeries dashed{family.name + ", conditional", family.colour, "dashed", false, {}};
    for (size_t i = 0; i < one.all.acceptance_rate_per_position.size(); ++i) {
      const auto position = static_cast<double>(i + 1);
      solid.points.emplace_back(position, one.all.acceptance_rate_per_position[i]);
      const Estimate& conditional = one.all.conditional_acceptance_rate_per_position[i];
      if (one.all.totals.reached_per_position[i] > 0) {
        dashed.points.emplace_back(position, conditional);
      }
    }
    if (solid.points.empty()) continue;
    legend.push_back({one.setting.label() + ", unconditional", family.colour, "solid"});
    legend.push_back({one.setting.label() + ", given all before", family.colour, "dashed"});
    chart.series.push_back(std::move(dashed));
    chart.series.push_back(std::move(solid));
  }
  if (chart.series.empty()) return "";
  return figure(chart.title,
                "Share of drafting rounds in which a position stood; dashed: among the rounds in "
                "which all positions before it did.",
                draw(chart), legend);
}

std::string category_figure(const Report& report) {
  if (report.categories.size() < 2) return "";
  DotChart chart;
  chart.title = marked(report, "Acceptance rate by category");
  chart.x_name = "accepted / drafted tokens";
  chart.rows = report.categories;
  std::vector<LegendEntry> legend;
  for (const Family& family : families(report)) {
    const SettingReport& one = family.fastest();
    for (size_t row = 0; row < chart.rows.size(); ++row) {
      const auto found = one.categories.find(chart.rows[row]);
      if (found == one.categories.end()) continue;
      chart.dots.push_back({row, family.colour, family.colour, found->second.acceptance_rate});
    }
    std::string name = one.setting.label();
    if (report.pairs.size() > 1)
      name = family.pair->name + " " + family.pair->info.method + ", " + name;
    legend.push_back({name, family.colour, "block"});
  }
  chart.slots = std::max(static_cast<int>(legend.size()), 1);
  if (chart.dots.empty()) return "";
  return figure(chart.title, "Each line's fastest setting, with 95 % intervals.", draw(chart),
                legend);
}

std::string phase_figure(const Report& report) {
  StackChart chart;
  chart.title = marked(report, "Time per phase");
  chart.x_name = "milliseconds for each generated token";
  chart.parts = {"verification", "draft", "prefill", "rest"};
  for (const PairReport& pair : report.pairs) {
    for (const SettingReport& one : pair.settings) {
      if (one.all.num_samples == 0) continue;
      chart.rows.push_back((report.pairs.size() > 1 ? pair.name + " " : "") + one.setting.label());
      chart.values.push_back({milliseconds_per_token(one.all.verify_seconds, one.all),
                              milliseconds_per_token(one.all.draft_seconds, one.all),
                              milliseconds_per_token(one.all.prefill_seconds, one.all),
                              milliseconds_per_token(one.all.rest_seconds, one.all)});
    }
  }
  if (chart.rows.empty()) return "";
  std::vector<LegendEntry> legend;
  for (size_t part = 0; part < chart.parts.size(); ++part) {
    legend.push_back({chart.parts[part], static_cast<int>(part), "block"});
  }
  return figure(chart.title, "From the request to the last token; shorter is faster.", draw(chart),
                legend);
}

std::string length_figure(const Report& report) {
  PointChart chart;
  chart.title = marked(report, "Accepted tokens of a round");
  chart.x_name = "drafted tokens that stood";
  chart.y_high = 0;
  chart.y_format = "%.2g";
  std::vector<LegendEntry> legend;
  for (const Family& family : families(report)) {
    const SettingReport& one = family.longest();
    const auto rounds = static_cast<double>(std::max<int64_t>(one.all.totals.num_drafts, 1));
    PointSeries series{one.setting.label(), family.colour, "solid", true, {}};
    for (size_t n = 0; n < one.all.totals.accepted_lengths.size(); ++n) {
      const double share = static_cast<double>(one.all.totals.accepted_lengths[n]) / rounds;
      series.points.push_back({static_cast<double>(n), {share, {}}});
      chart.y_high = std::max(chart.y_high, share);
    }
    if (series.points.empty()) continue;
    legend.push_back({one.setting.label(), family.colour, "solid"});
    chart.series.push_back(std::move(series));
  }
  if (chart.series.empty()) return "";
  return figure(chart.title, "Share of drafting rounds of which exactly so many tokens stood.",
                draw(chart), legend);
}

}  // namespace tandem::bench
