#include "decode_report.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace tandem::bench {
namespace {

double seconds_of_token(const DecodeRun& run) {
  return run.seconds / static_cast<double>(std::max<int64_t>(run.timed_tokens, 1));
}

double at(const std::vector<double>& seconds, int rows) {
  return static_cast<size_t>(rows) < seconds.size() ? seconds[static_cast<size_t>(rows)] : 0;
}

void print_passes(const DecodeReport& report) {
  const double one = at(report.main_pass_seconds, 1);
  std::printf("\nmain model, one row: %.4f ms", 1e3 * one);
  if (report.read_bandwidth > 0) {
    std::printf(", %.3f of the read bandwidth", report.main_bytes / one / report.read_bandwidth);
  }
  std::printf("; passes over one row by rows:\n");
  for (size_t rows = 1; rows < report.main_pass_seconds.size(); ++rows) {
    std::printf(" %zu: %.3f", rows, report.main_pass_seconds[rows] / one);
  }
  std::printf("\n");
}

void print_plain(const char* what, const DecodeReport& report, const DecodeRun& plain) {
  std::printf("%s: %.1f tokens/s, %.4f ms a token", what, plain.tokens_per_second(),
              1e3 * seconds_of_token(plain));
  if (report.read_bandwidth > 0) {
    std::printf(", whole step %.3f of the read bandwidth",
                report.main_bytes / seconds_of_token(plain) / report.read_bandwidth);
  }
  std::printf("\n");
}

void print_draft(const DecodeReport& report, const DraftReport& draft) {
  const double one = at(draft.pass_seconds, 1);
  std::printf("\ndraft %s: loaded in %.1f s, b = %.4f, one row %.4f ms (c = %.4f)",
              draft.quantization.c_str(), draft.load_seconds, draft.bytes_ratio, 1e3 * one,
              report.c(draft));
  if (report.read_bandwidth > 0) {
    std::printf(", %.3f of the read bandwidth",
                draft.bytes_ratio * report.main_bytes / one / report.read_bandwidth);
  }
  std::printf("\n");
  print_plain("plain, interleaved", report, draft.plain);
  std::printf("%3s %9s %7s %7s %7s %6s %7s %7s %6s %7s %6s %8s %8s %8s  %s\n", "K", "tokens/s",
              "x plain", "median", "accept", "E", "v(K)", "E/(v+Kc)", "share", "bound", "share",
              "draft s", "verify s", "other s", "same text");
  for (const SpeculativeSeries& series : draft.series) {
    const DecodeRun& run = series.run;
    const double speedup = DecodeReport::speedup(draft, series);
    const double predicted = report.predicted(draft, series);
    const double bound = DecodeReport::bound(draft, series);
    std::printf(
        "%3d %9.1f %7.3f %7.3f %7.3f %6.3f %7.3f %8.3f %6.3f %7.3f %6.3f %8.4f %8.4f %8.4f  %s\n",
        series.draft_length, run.tokens_per_second(), speedup, median(series.ratios),
        run.acceptance_rate(), run.mean_acceptance_length(), report.v(series.draft_length),
        predicted, speedup / predicted, bound, speedup / bound, run.draft_seconds,
        run.verify_seconds, run.seconds - run.draft_seconds - run.verify_seconds,
        series.same_text ? "yes" : "NO");
  }
  for (const RoundOverhead& overhead : draft.overheads) {
    std::printf("round at K = %d, %s: %.4f ms, forwards alone %.4f ms, the rest %.2f %%\n",
                overhead.draft_length, overhead.rule, 1e3 * overhead.round_seconds,
                1e3 * overhead.forward_seconds, 100 * overhead.share());
  }
}

nlohmann::json run_json(const DecodeRun& run) {
  return {{"tokens_per_second", run.tokens_per_second()},
          {"tokens", run.timed_tokens},
          {"seconds", run.seconds},
          {"num_rounds", run.rounds},
          {"acceptance_rate", run.acceptance_rate()},
          {"mean_acceptance_length", run.mean_acceptance_length()},
          {"draft_seconds", run.draft_seconds},
          {"verify_seconds", run.verify_seconds}};
}

nlohmann::json draft_json(const DecodeReport& report, const DraftReport& draft) {
  nlohmann::json series_json = nlohmann::json::array();
  for (const SpeculativeSeries& series : draft.series) {
    nlohmann::json row = run_json(series.run);
    row["num_speculative_tokens"] = series.draft_length;
    row["ratio_to_plain"] = DecodeReport::speedup(draft, series);
    row["median_ratio_to_plain"] = median(series.ratios);
    row["v"] = report.v(series.draft_length);
    row["predicted"] = report.predicted(draft, series);
    row["bound"] = DecodeReport::bound(draft, series);
    row["same_text"] = series.same_text;
    series_json.push_back(std::move(row));
  }
  nlohmann::json overheads = nlohmann::json::array();
  for (const RoundOverhead& overhead : draft.overheads) {
    overheads.push_back({{"rule", overhead.rule},
                         {"num_speculative_tokens", overhead.draft_length},
                         {"round_seconds", overhead.round_seconds},
                         {"forward_seconds", overhead.forward_seconds},
                         {"share", overhead.share()}});
  }
  return {{"quantization", draft.quantization},
          {"load_seconds", draft.load_seconds},
          {"bytes_ratio", draft.bytes_ratio},
          {"pass_seconds", draft.pass_seconds},
          {"c", report.c(draft)},
          {"plain", run_json(draft.plain)},
          {"settings", series_json},
          {"round_overheads", overheads}};
}

}  // namespace

double DecodeReport::v(int draft_length) const {
  return at(main_pass_seconds, draft_length + 1) / at(main_pass_seconds, 1);
}
double DecodeReport::c(const DraftReport& draft) const {
  return at(draft.pass_seconds, 1) / at(main_pass_seconds, 1);
}
double DecodeReport::predicted(const DraftReport& draft, const SpeculativeSeries& series) const {
  const int k = series.draft_length;
  return series.run.mean_acceptance_length() / (v(k) + k * c(draft));
}
double DecodeReport::bound(const DraftReport& draft, const SpeculativeSeries& series) {
  return series.run.mean_acceptance_length() / (1 + series.draft_length * draft.bytes_ratio);
}
double DecodeReport::speedup(const DraftReport& draft, const SpeculativeSeries& series) {
  return seconds_of_token(draft.plain) / seconds_of_token(series.run);
}
bool DecodeReport::same_text() const {
  return std::all_of(drafts.begin(), drafts.end(), [](const DraftReport& draft) {
    return std::all_of(draft.series.begin(), draft.series.end(),
                       [](const SpeculativeSeries& series) { return series.same_text; });
  });
}

void print_tables(const DecodeReport& report) {
  std::printf("%s\n%s; main model loaded in %.1f s, %.3f GB a pass", report.title.c_str(),
              report.device.c_str(), report.load_seconds, report.main_bytes / 1e9);
  if (report.read_bandwidth > 0) std::printf("; reads %.3f TB/s", report.read_bandwidth / 1e12);
  print_passes(report);
  if (report.drafts.empty()) print_plain("plain", report, report.plain);
  for (const DraftReport& draft : report.drafts) print_draft(report, draft);
}

std::string to_json(const DecodeReport& report) {
  nlohmann::json drafts = nlohmann::json::array();
  for (const DraftReport& draft : report.drafts) drafts.push_back(draft_json(report, draft));
  const nlohmann::json document = {{"title", report.title},
                                   {"device", report.device},
                                   {"load_seconds", report.load_seconds},
                                   {"read_bandwidth", report.read_bandwidth},
                                   {"main_bytes", report.main_bytes},
                                   {"main_pass_seconds", report.main_pass_seconds},
                                   {"plain", run_json(report.plain)},
                                   {"drafts", drafts}};
  return document.dump();
}

}  // namespace tandem::bench
