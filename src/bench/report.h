#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bench/dataset.h"
#include "bench/round_costs.h"
#include "bench/run.h"
#include "bench/summary.h"
#include "tandem/speedup.h"

namespace tandem::bench {

/// One setting's figures, over all prompts and by category.
struct SettingReport {
  Setting setting;
  Summary all;
  std::map<std::string, Summary> categories;
};

/// A draft that costs something else than the measured one. Acceptance is taken to stay the same.
struct DraftVariant {
  std::string name;         ///< "as measured", "fp8 draft", "int4 draft", "draft on its own device"
  std::string basis;        ///< where its costs come from, for people
  double draft_factor = 1;  ///< of a draft pass, over the one at hand
  bool hidden = false;      ///< behind verification

  CostTable applied_to(const CostTable& measured) const;
};

/// The speed-up that a cost table predicts for every K, beside what was measured there.
struct WhatIf {
  float temperature = 0;
  std::string rejection_sample_method;
  /// Conditional acceptance by position, of the measured setting with the largest K: what
  /// predictions go by where K itself was not measured.
  std::vector<double> conditional;
  CostTable costs;  ///< of the first variant
  std::vector<std::string> variants;
  struct Row {
    int num_speculative_tokens = 0;
    const SettingReport* measured = nullptr;  ///< null where this K was not
    std::vector<double> ratio_to_plain;       ///< by variant

    /// Predicted over measured, less one; none where this K was not measured.
    std::optional<double> difference() const;
  };
  std::vector<Row> rows;
};

/// One pair with one drafter.
struct PairReport {
  std::string name;
  EngineInfo info;
  int num_prompts_too_long = 0;  ///< left out: they leave no room for an answer in the context
  CostTable costs;               ///< that "auto" went by; empty where nothing drafts
  std::vector<RoundCosts> timed_costs;  ///< by rule: of rounds timed in turns with the settings
  std::vector<DraftVariant> variants;
  std::vector<WhatIf> what_ifs;
  /// In the order of PairUnderTest::settings, without those that time rounds.
  std::vector<SettingReport> settings;

  const SettingReport* plain_of(const Setting& setting) const;  ///< null when nothing was measured
};

struct DatasetReport {
  std::string name;
  std::string format;
  int num_prompts = 0;  ///< used, after the limit
  int num_skipped_lines = 0;
};

/// All that a benchmark found.
struct Report {
  std::string version;  ///< of tandem
  std::string created;  ///< UTC, ISO 8601
  bool interrupted = false;
  std::string synthetic;  ///< how acceptance was made up; empty: it is the models'
  std::vector<DatasetReport> datasets;
  std::vector<std::string> categories;  ///< in the order of first appearance
  int limit = 0;
  int max_tokens = 0;
  RunOptions run;
  BootstrapOptions bootstrap;
  std::vector<PairReport> pairs;
};

/// Adds what was measured of one pair; samples without a plain one beside them are left out.
PairReport pair_report(const PairUnderTest& pair, const EngineInfo& info,
                       const std::vector<Prompt>& prompts, const std::vector<Sample>& samples,
                       bool compare_text, const BootstrapOptions& options);

/// A name of a report and what it means.
struct Definition {
  const char* name;
  const char* meaning;
};
const std::vector<Definition>& definitions();

/// report.json; docs/bench-report.schema.json describes it.
std::string report_json(const Report& report);
/// What a terminal shows.
std::string report_table(const Report& report);
/// report.html: one file with its pictures inside, which needs no network.
std::string report_html(const Report& report);

}  // namespace tandem::bench
