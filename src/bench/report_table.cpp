#include <algorithm>
#include <sstream>

#include "bench/report.h"
#include "bench/report_text.h"

namespace tandem::bench {
namespace {

/// Columns as wide as their widest cell; the first one to the left, the others to the right.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> head) { rows_.push_back(std::move(head)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  void print(std::ostream& out) const {
    std::vector<size_t> widths(rows_.front().size(), 0);
    for (const auto& row : rows_) {
      for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], columns_of(row[c]));
    }
    for (const auto& row : rows_) {
      std::string line = "  ";
      for (size_t c = 0; c < row.size(); ++c) {
        const std::string pad(widths[c] - columns_of(row[c]), ' ');
        line += c == 0 ? row[c] + pad : "  " + pad + row[c];
      }
      line.erase(line.find_last_not_of(' ') + 1);
      out << line << "\n";
    }
  }

 private:
  /// Characters, not bytes: UTF-8 continuation bytes take no column.
  static size_t columns_of(const std::string& text) {
    return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
      return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    }));
  }

  std::vector<std::vector<std::string>> rows_;
};

std::string joined(const std::vector<Estimate>& estimates) {
  std::string text;
  for (const Estimate& estimate : estimates) {
    text += (text.empty() ? "" : " ") + number("%.2f", estimate.value);
  }
  return text;
}

std::string same_text(const Setting& setting, const Summary& summary) {
  if (!summary.same_text_rate) return "–";
  const double rate = summary.same_text_rate->value;
  if (rate >= 1) return "yes";
  return number("%.0f %%", kPercent * rate) + (setting.promises_same_text() ? " (!)" : "");
}

std::vector<std::string> speed_row(const std::string& name, const Setting& setting,
                                   const Summary& summary) {
  const bool drafts = !setting.is_plain();
  return {name,
          drafts ? with_interval("%.3f", summary.acceptance_rate) : "",
          drafts ? with_interval("%.2f", summary.mean_acceptance_length) : "",
          number("%.0f", summary.tokens_per_second.value),
          with_interval("%.2f", summary.ratio_to_plain),
          number("%.1f", kMilliseconds * summary.time_to_first_token_seconds.value),
          per_token(summary.draft_seconds, summary),
          per_token(summary.verify_seconds, summary),
          per_token(summary.rest_seconds, summary),
          drafts ? same_text(setting, summary) : ""};
}

const std::vector<std::string> kSpeedHead = {
    "setting",  "acceptance rate", "mean length", "tokens/s", "x plain",
    "first ms", "draft",           "verify",      "rest",     "same text"};

void print_positions(std::ostream& out, const PairReport& pair) {
  TextTable table({"acceptance by position", "unconditional", "conditional", "sum min(p,q)"});
  bool any = false;
  for (const SettingReport& one : pair.settings) {
    if (one.setting.is_plain() || one.all.num_samples == 0) continue;
    any = true;
    table.add(
        {one.setting.label(), joined(one.all.acceptance_rate_per_position),
         joined(one.all.conditional_acceptance_rate_per_position),
         one.all.expected_acceptance ? joined(one.all.expected_acceptance_per_position) : "–"});
  }
  if (!any) return;
  out << "\n";
  table.print(out);
}

/// Behind K, what was measured, and what the costs as measured predict.
constexpr int kDifferenceColumn = 3;

void print_what_if(std::ostream& out, const PairReport& pair) {
  for (const WhatIf& table : pair.what_ifs) {
    const Setting rule{Setting::kAuto, table.temperature, table.rejection_sample_method};
    std::vector<std::string> head = {
        "what if, " + rule.label().substr(std::string_view("auto ").size()), "measured"};
    head.insert(head.end(), table.variants.begin(), table.variants.end());
    head.insert(head.begin() + kDifferenceColumn, "difference");
    TextTable text(head);
    for (const WhatIf::Row& row : table.rows) {
      std::vector<std::string> cells = {
          "K=" + std::to_string(row.num_speculative_tokens),
          row.measured == nullptr ? "" : number("%.2f", row.measured->all.ratio_to_plain.value)};
      for (const double ratio : row.ratio_to_plain) cells.push_back(number("%.2f", ratio));
      cells.insert(cells.begin() + kDifferenceColumn, difference(row));
      text.add(cells);
    }
    out << "\n";
    text.print(out);
  }
  if (pair.what_ifs.empty()) return;
  for (const DraftVariant& variant : pair.variants) {
    out << "  " << variant.name << ": " << variant.basis << "\n";
  }
}

void print_categories(std::ostream& out, const PairReport& pair,
                      const std::vector<std::string>& categories) {
  const SettingReport* const best = fastest(pair);
  if (best == nullptr || categories.size() < 2) return;
  out << "\n";
  std::vector<std::string> head = kSpeedHead;
  head.front() = "category, " + best->setting.label();
  TextTable table(head);
  for (const std::string& category : categories) {
    const auto found = best->categories.find(category);
    if (found == best->categories.end()) continue;
    table.add(speed_row(category + " (" + std::to_string(found->second.num_prompts) + ")",
                        best->setting, found->second));
  }
  table.print(out);
}

void print_pair(std::ostream& out, const Report& report, const PairReport& pair) {
  out << "\n" << heading(pair) << (report.synthetic.empty() ? "" : "  [SYNTHETIC]") << "\n";
  if (pair.num_prompts_too_long > 0) {
    out << "  " << pair.num_prompts_too_long
        << " prompts left out: they leave no room in a context of " << pair.info.max_model_len
        << " tokens\n";
  }
  TextTable table(kSpeedHead);
  for (const SettingReport& one : pair.settings) {
    if (one.all.num_samples > 0) table.add(speed_row(one.setting.label(), one.setting, one.all));
  }
  table.print(out);
  print_positions(out, pair);
  print_categories(out, pair, report.categories);
  print_what_if(out, pair);
}

}  // namespace

std::string report_table(const Report& report) {
  std::ostringstream out;
  if (!report.synthetic.empty()) {
    out << "SYNTHETIC: " << report.synthetic << "; the text means nothing\n";
  }
  if (report.interrupted) out << "Interrupted: this is what was finished by then\n";
  for (const DatasetReport& dataset : report.datasets) {
    out << dataset.name << ": " << dataset.num_prompts << " prompts (" << dataset.format << ")";
    if (dataset.num_skipped_lines > 0) out << ", " << dataset.num_skipped_lines << " lines skipped";
    out << "\n";
  }
  for (const PairReport& pair : report.pairs) print_pair(out, report, pair);
  out << "\n  ± half the width of the " << number("%.0f", kPercent * report.bootstrap.confidence)
      << " % confidence interval (bootstrap over prompts). acceptance rate = accepted / drafted;\n"
         "  mean length = 1 + accepted / drafting rounds; tokens/s = (tokens - 1) / decode time; x "
         "plain: the same prompts decoded\n"
         "  plainly in the same run; first ms: time to the first token; draft, verify, rest: "
         "milliseconds a token.\n";
  return out.str();
}

}  // namespace tandem::bench
