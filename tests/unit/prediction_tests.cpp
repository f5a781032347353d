// Predicted speed-ups beside "measured" ones, in model time: rounds take what a law says, drafts
// stand as they did in recorded texts (tests/spec/data/acceptance.json, see auto_length_tests), and
// the predictions know of the law only what the timing settings saw of it.

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/report.h"
#include "bench/round_costs.h"
#include "bench/what_if.h"
#include "spec/synthetic_acceptance.h"
#include "support/catch.h"

using namespace tandem;
using namespace tandem::bench;

namespace {

constexpr int kMostDrafts = 8, kPromptTokens = 120;
/// The bound that the clock is held to.
constexpr double kTolerance = 0.07;
using Trace = std::vector<int>;

std::vector<Trace> recorded(const std::string& name) {
  std::ifstream file(std::string(TANDEM_SOURCE_DIR) + "/tests/spec/data/acceptance.json");
  std::vector<Trace> traces;
  const auto document = nlohmann::json::parse(file);
  for (const auto& text : document.at(name)) {
    Trace& trace = traces.emplace_back();
    for (const char c : text.get<std::string>()) {
      trace.push_back(c <= '9' ? c - '0' : c - 'a' + 10);
    }
  }
  return traces;
}

/// What a round takes, in seconds. Passes over more positions cost more; a round with drafts finds
/// the main model's weights out of the cache, which passes timed alone would not show.
struct Law {
  double evicted = 0.6;
  double draft_seconds(int drafts) const { return drafts == 0 ? 0 : 0.02 + 0.1 * drafts; }
  double verify_seconds(int drafts, int positions) const {
    const double rows = drafts + 1;
    return 1 + (drafts > 0 ? evicted : 0) + 0.13 * (rows - 1) + 0.0004 * rows * positions;
  }
};

/// A text whose rounds begin where `stood` says how many drafts stand.
template <typename Stood>
Stats write(const Law& law, int k, int tokens, const Stood& stood) {
  Stats stats;
  for (int at = 0, round = 0; at < tokens; ++round) {
    const int drafts = std::min(k, tokens - at - 1);
    const int accepted = std::min(drafts, stood(at, round, drafts));
    const double draft = law.draft_seconds(drafts);
    const double verify = law.verify_seconds(drafts, kPromptTokens + at);
    stats.add_round(drafts, accepted, accepted, draft, verify);
    (round == 0 ? stats.time_to_first_token_seconds : stats.decode_seconds) += draft + verify;
    at += accepted + 1;
  }
  stats.num_tokens = tokens;
  return stats;
}

struct Bench {
  PairUnderTest pair;
  std::vector<Prompt> prompts;
  std::vector<Sample> samples;

  Bench(const Law& law, const std::vector<Trace>& traces) {
    pair.config.speculation.method = "ngram";  // no draft whose bytes other costs could follow from
    pair.settings.push_back({0, 0, ""});
    for (int k = 1; k <= kMostDrafts; ++k) pair.settings.push_back({k, 0, "greedy"});
    const auto timing = timing_settings(pair.settings, kMostDrafts);
    pair.settings.insert(pair.settings.end(), timing.begin(), timing.end());
    for (size_t prompt = 0; prompt < traces.size(); ++prompt) {
      prompts.push_back({std::to_string(prompt), "text", {"x"}});
      for (size_t setting = 0; setting < pair.settings.size(); ++setting) {
        const Setting& one = pair.settings[setting];
        if (one.times_rounds && !times_rounds_at(prompt, pair.settings)) continue;
        samples.push_back(sample(law, traces[prompt], prompt, setting));
      }
    }
  }

  Sample sample(const Law& law, const Trace& trace, size_t prompt, size_t setting) const {
    const int k = pair.settings[setting].num_speculative_tokens;
    const auto tokens = static_cast<int>(trace.size());
    Sample result;
    result.prompt = prompt;
    result.setting = setting;
    result.turns = 1;
    if (pair.settings[setting].times_rounds) {
      const SyntheticAcceptance made_up(acceptance_rates_of_length(1 + 0.5 * k), prompt);
      result.stats = write(law, k, tokens, [&](int, int round, int drafts) {
        return made_up.accepted(round, drafts);
      });
    } else {
      result.stats =
          write(law, k, tokens, [&](int at, int, int) { return trace[static_cast<size_t>(at)]; });
    }
    return result;
  }

  PairReport report() const {
    EngineInfo info;
    PairReport made = pair_report(pair, info, prompts, samples, false, {});
    made.costs = bandwidth_costs(0.5, kMostDrafts);  // far off: what the load might have measured
    made.variants = draft_variants(pair.config, made);
    made.what_ifs = what_if(made);
    return made;
  }
};

}  // namespace

TEST_CASE("Predicted speed-ups are near the measured ones", "[bench]") {
  for (const std::string name : {"good draft", "worse draft", "poor draft"}) {
    for (const double evicted : {0.0, 0.6}) {
      Law law;
      law.evicted = evicted;
      const PairReport report = Bench(law, recorded(name)).report();
      REQUIRE(report.settings.size() == 1 + kMostDrafts);  // those that time are not among them
      REQUIRE(report.timed_costs.size() == 1);
      REQUIRE(report.what_ifs.size() == 1);
      CHECK(report.what_ifs[0].costs == report.timed_costs[0].costs);
      REQUIRE(report.what_ifs[0].rows.size() == kMostDrafts);
      for (const WhatIf::Row& row : report.what_ifs[0].rows) {
        REQUIRE(row.measured != nullptr);
        CAPTURE(name, evicted, row.num_speculative_tokens, row.ratio_to_plain[0],
                row.measured->all.ratio_to_plain.value);
        CHECK(std::abs(*row.difference()) <= kTolerance);
      }
    }
  }
}

TEST_CASE("Costs that are not those of the loop predict something else", "[bench]") {
  // What passes timed alone would show: the test above must be able to fail.
  Law loop, alone;
  alone.evicted = 0;
  const std::vector<Trace> traces = recorded("good draft");
  Bench bench(loop, traces);
  for (Sample& sample : bench.samples) {
    if (!bench.pair.settings[sample.setting].times_rounds) continue;
    sample = bench.sample(alone, traces[sample.prompt], sample.prompt, sample.setting);
  }
  const PairReport report = bench.report();
  for (const WhatIf::Row& row : report.what_ifs[0].rows) {
    CHECK(std::abs(*row.difference()) > kTolerance);
  }
}

TEST_CASE("Timed rounds give a table whose rounds cost what they took", "[bench]") {
  Law flat;
  PairReport report = Bench(flat, recorded("good draft")).report();
  const CostTable& costs = report.timed_costs.at(0).costs;
  REQUIRE(costs.max_drafts() == kMostDrafts);
  CHECK(costs.draft_step_seconds == Approx(0.1).epsilon(0.02));
  CHECK(costs.draft_first_seconds == Approx(0.12).epsilon(0.02));
  const double positions = kPromptTokens + 128;
  CHECK(costs.round_seconds(0) ==
        Approx(flat.verify_seconds(0, static_cast<int>(positions))).epsilon(0.01));
  CHECK(costs.round_seconds(5) ==
        Approx(flat.draft_seconds(5) + flat.verify_seconds(5, static_cast<int>(positions)))
            .epsilon(0.02));
}

TEST_CASE("Without every K timed the pair's own table stands", "[bench]") {
  Bench bench(Law{}, recorded("good draft"));
  std::erase_if(bench.samples, [&](const Sample& sample) {
    const Setting& setting = bench.pair.settings[sample.setting];
    return setting.times_rounds && setting.num_speculative_tokens == 3;
  });
  const PairReport report = bench.report();
  CHECK(report.timed_costs.empty());
  CHECK(report.what_ifs.at(0).costs == report.costs);
}

TEST_CASE("Rounds are timed on every so many prompts, about a quarter of the work", "[bench]") {
  std::vector<Setting> settings = {{0, 0, ""}};
  for (const int k : {1, 2, 4, 8, Setting::kAuto}) settings.push_back({k, 0, "greedy"});
  const auto timing = timing_settings(settings, kMostDrafts);
  CHECK(timing.size() == 9);
  CHECK_FALSE(times_rounds_at(0, settings));  // none among them
  settings.insert(settings.end(), timing.begin(), timing.end());
  size_t timed = 0;
  for (size_t number = 0; number < 100; ++number)
    timed += times_rounds_at(number, settings) ? 1 : 0;
  CHECK(times_rounds_at(0, settings));
  const auto share = static_cast<double>(timed * 9) / static_cast<double>(timed * 9 + 100 * 6);
  CHECK(share > 0.2);
  CHECK(share < 0.3);
  // Each temperature and rule has its own.
  settings = {{0, 0, ""}, {0, 1, ""}, {2, 0, "greedy"}, {2, 1, "block"}, {2, 1, "coupled"}};
  CHECK(timing_settings(settings, 4).size() == 2 + 3 * 4);
  CHECK(timing_settings({{0, 0, ""}}, 4).empty());
}
