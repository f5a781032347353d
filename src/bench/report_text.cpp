#include "bench/report_text.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

namespace tandem::bench {
namespace {

std::string folder_name(const std::string& path) {
  const std::filesystem::path folder(path);
  return folder.filename().empty() ? folder.parent_path().filename().string()
                                   : folder.filename().string();
}

}  // namespace

std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string with_interval(const char* format, const Estimate& estimate) {
  std::string text = number(format, estimate.value);
  if (estimate.interval) {
    text += " ± " + number(format, (estimate.interval->second - estimate.interval->first) / 2);
  }
  return text;
}

double milliseconds_per_token(double seconds, const Summary& summary) {
  return summary.totals.num_tokens == 0
             ? 0
             : kMilliseconds * seconds / static_cast<double>(summary.totals.num_tokens);
}

std::string per_token(double seconds, const Summary& summary) {
  return number("%.3f", milliseconds_per_token(seconds, summary));
}

std::string difference(const WhatIf::Row& row) {
  const std::optional<double> found = row.difference();
  return found ? number("%+.1f %%", kPercent * *found) : "";
}

std::string heading(const PairReport& pair) {
  std::string text =
      pair.name + " · " + pair.info.method + " · " + folder_name(pair.info.main_model);
  if (!pair.info.draft_model.empty()) text += " + " + folder_name(pair.info.draft_model);
  return text + " on " + pair.info.device;
}

const SettingReport* fastest(const PairReport& pair) {
  const SettingReport* best = nullptr;
  for (const SettingReport& one : pair.settings) {
    if (one.setting.is_plain() || one.all.num_samples == 0) continue;
    if (best == nullptr || one.all.ratio_to_plain.value > best->all.ratio_to_plain.value)
      best = &one;
  }
  return best;
}

}  // namespace tandem::bench
