#include <algorithm>
#include <sstream>

#include "bench/report.h"
#include "bench/report_charts.h"
#include "bench/report_style.h"
#include "bench/report_text.h"
#include "bench/svg.h"

namespace tandem::bench {
namespace {

std::string cell(const std::string& text, bool best = false) {
  return (best ? "<td class=\"best\">" : "<td>") + escape_html(text) + "</td>";
}

std::string cell(const char* format, const Estimate& estimate, bool best = false) {
  std::string text = escape_html(number(format, estimate.value));
  if (estimate.interval) {
    text += " <i>" + number(format, estimate.interval->first) + "–" +
            number(format, estimate.interval->second) + "</i>";
  }
  return (best ? "<td class=\"best\">" : "<td>") + text + "</td>";
}

std::string head(const std::vector<std::string>& names) {
  std::string row = "<tr>";
  for (const std::string& name : names) row += "<th>" + escape_html(name) + "</th>";
  return row + "</tr>\n";
}

std::string same_text(const Summary& summary) {
  if (!summary.same_text_rate) return "–";
  return number("%.0f", kPercent * summary.same_text_rate->value) + " %";
}

std::string speed_cells(const Setting& setting, const Summary& summary, bool best) {
  const bool drafts = !setting.is_plain();
  return (drafts ? cell("%.3f", summary.acceptance_rate) : cell("")) +
         (drafts ? cell("%.2f", summary.mean_acceptance_length) : cell("")) +
         (summary.expected_acceptance ? cell("%.3f", *summary.expected_acceptance)
                                      : cell(drafts ? "–" : "")) +
         cell("%.0f", summary.tokens_per_second) + cell("%.2f", summary.ratio_to_plain, best) +
         cell(number("%.1f ms", kMilliseconds * summary.time_to_first_token_seconds.value)) +
         cell(drafts ? same_text(summary) : "");
}

std::vector<std::string> speed_head(const std::string& first) {
  return {first,         "acceptance rate", "mean acceptance length",
          "Σ min(p, q)", "tokens/s",        "× plain",
          "first token", "same text"};
}

void write_settings(std::ostream& out, const PairReport& pair) {
  const SettingReport* const best = fastest(pair);
  out << "<div class=\"scroll\"><table>" << head(speed_head("setting"));
  for (const SettingReport& one : pair.settings) {
    if (one.all.num_samples == 0) continue;
    out << "<tr>" << cell(one.setting.label(), &one == best)
        << speed_cells(one.setting, one.all, &one == best) << "</tr>\n";
  }
  out << "</table></div>\n";
}

void write_categories(std::ostream& out, const Report& report, const PairReport& pair) {
  if (report.categories.size() < 2) return;
  out << "<details><summary>By category</summary>\n";
  for (const SettingReport& one : pair.settings) {
    if (one.all.num_samples == 0) continue;
    out << "<div class=\"scroll\"><table>" << head(speed_head(one.setting.label()));
    for (const std::string& category : report.categories) {
      const auto found = one.categories.find(category);
      if (found == one.categories.end()) continue;
      out << "<tr>" << cell(category + " (" + std::to_string(found->second.num_prompts) + ")")
          << speed_cells(one.setting, found->second, false) << "</tr>\n";
    }
    out << "</table></div><br>\n";
  }
  out << "</details>\n";
}

void write_what_if(std::ostream& out, const PairReport& pair) {
  for (const WhatIf& table : pair.what_ifs) {
    Setting rule{Setting::kAuto, table.temperature, table.rejection_sample_method};
    out << "<h3>What if, " << escape_html(rule.label().substr(std::string_view("auto ").size()))
        << "</h3><p class=\"muted\">Speed-up over plain decoding, measured and predicted from the "
           "costs of a round and the acceptance.</p><div class=\"scroll\"><table>";
    std::vector<std::string> names = {"K", "measured"};
    names.insert(names.end(), table.variants.begin(), table.variants.end());
    names.push_back("as measured over measured");
    out << head(names);
    std::vector<double> largest(table.variants.size(), 0);
    for (const WhatIf::Row& row : table.rows) {
      for (size_t i = 0; i < largest.size(); ++i) {
        largest[i] = std::max(largest[i], row.ratio_to_plain[i]);
      }
    }
    for (const WhatIf::Row& row : table.rows) {
      out << "<tr>" << cell(std::to_string(row.num_speculative_tokens))
          << (row.measured == nullptr ? cell("") : cell("%.2f", row.measured->all.ratio_to_plain));
      for (size_t i = 0; i < largest.size(); ++i) {
        out << cell(number("%.2f", row.ratio_to_plain[i]), row.ratio_to_plain[i] == largest[i]);
      }
      out << cell(difference(row));
      out << "</tr>\n";
    }
    out << "</table></div>\n";
  }
  if (pair.what_ifs.empty()) return;
  out << "<p class=\"muted\">";
  for (const DraftVariant& variant : pair.variants) {
    out << escape_html(variant.name) << ": " << escape_html(variant.basis) << ". ";
  }
  out << "</p>\n";
}

void write_tile(std::ostream& out, const std::string& value, const std::string& name) {
  out << "<div class=\"tile\"><b>" << escape_html(value) << "</b><span class=\"muted\">"
      << escape_html(name) << "</span></div>\n";
}

void write_tiles(std::ostream& out, const Report& report) {
  const PairReport* pair = nullptr;
  const SettingReport* best = nullptr;
  for (const PairReport& one : report.pairs) {
    const SettingReport* const candidate = fastest(one);
    if (candidate == nullptr) continue;
    if (best == nullptr || candidate->all.ratio_to_plain.value > best->all.ratio_to_plain.value) {
      best = candidate;
      pair = &one;
    }
  }
  if (best == nullptr) return;
  std::string name = best->setting.label();
  if (report.pairs.size() > 1) name = pair->name + " " + pair->info.method + ", " + name;
  out << "<div class=\"tiles\">\n";
  write_tile(out, number("%.2f×", best->all.ratio_to_plain.value), "plain decoding, " + name);
  write_tile(out, number("%.0f", best->all.tokens_per_second.value), "tokens per second");
  write_tile(out, number("%.2f", best->all.mean_acceptance_length.value), "mean acceptance length");
  write_tile(out, number("%.1f %%", kPercent * best->all.acceptance_rate.value), "acceptance rate");
  write_tile(out, std::to_string(best->all.num_prompts), "prompts");
  out << "</div>\n";
}

void write_pair(std::ostream& out, const Report& report, const PairReport& pair) {
  out << "<h2>" << escape_html(heading(pair)) << (report.synthetic.empty() ? "" : " (synthetic)")
      << "</h2>\n";
  if (pair.num_prompts_too_long > 0) {
    out << "<p class=\"muted\">" << pair.num_prompts_too_long
        << " prompts left out: they leave no room for an answer in a context of "
        << pair.info.max_model_len << " tokens.</p>\n";
  }
  write_settings(out, pair);
  write_categories(out, report, pair);
  write_what_if(out, pair);
}

void write_facts(std::ostream& out, const Report& report) {
  out << "<p class=\"muted\">tandem " << escape_html(report.version) << ", "
      << escape_html(report.created) << ". ";
  for (const DatasetReport& dataset : report.datasets) {
    out << escape_html(dataset.name) << ": " << dataset.num_prompts << " prompts";
    if (dataset.num_skipped_lines > 0) {
      out << " (" << dataset.num_skipped_lines << " malformed lines skipped)";
    }
    out << ". ";
  }
  out << report.max_tokens << " tokens a text at most, seed " << report.run.seed << ", "
      << report.run.repeats << (report.run.repeats == 1 ? " repeat" : " repeats") << ".</p>\n";
}

}  // namespace

std::string report_html(const Report& report) {
  std::ostringstream out;
  const std::string title = report.synthetic.empty() ? "tandem bench" : "tandem bench (synthetic)";
  out << "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>"
      << title << "</title><style>" << kReportStyle << "</style></head><body>\n<h1>" << title
      << "</h1>\n";
  write_facts(out, report);
  if (!report.synthetic.empty()) {
    out << "<p class=\"warning\">Synthetic: " << escape_html(report.synthetic)
        << ". Times are real, the text means nothing.</p>\n";
  }
  if (report.interrupted) {
    out << "<p class=\"warning\">Interrupted: this is what was finished by then.</p>\n";
  }
  write_tiles(out, report);
  out << "<div class=\"charts\">\n"
      << speedup_figure(report) << position_figure(report) << category_figure(report)
      << phase_figure(report) << length_figure(report) << "</div>\n";
  for (const PairReport& pair : report.pairs) write_pair(out, report, pair);
  out << "<details><summary>What the names mean</summary><dl>\n";
  for (const Definition& definition : definitions()) {
    out << "<dt>" << escape_html(definition.name) << "</dt><dd>" << escape_html(definition.meaning)
        << "</dd>\n";
  }
  out << "</dl></details>\n</body></html>\n";
  return out.str();
}

}  // namespace tandem::bench
