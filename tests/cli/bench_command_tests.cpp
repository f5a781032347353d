#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "cli/run_tandem.h"
#include "support/catch.h"
#include "support/json_schema.h"
#include "support/sanitized.h"

using namespace tandem::testing;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string written(const TemporaryFolder& folder, const std::string& name,
                    const std::string& text) {
  const fs::path path = folder.path() / name;
  std::ofstream(path, std::ios::binary) << text;
  return path.string();
}

std::vector<std::string> bench_demo(std::vector<std::string> options) {
  std::vector<std::string> arguments = {
      "bench", "--main", demo_main().string(), "--draft", demo_draft().string(), "--threads", "1"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return arguments;
}

std::string refusal(const std::vector<std::string>& arguments) {
  const ProcessResult result = run_tandem(arguments);
  INFO("stderr: " << result.err);
  CHECK(result.exit_code == 2);
  CHECK(result.out.empty());
  CHECK(result.err.starts_with("tandem: error: "));
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  return result.err;
}

constexpr const char* kPrompts =
    "{\"prompt\": \"def add(a, b):\\n\", \"category\": \"short\"}\n"
    "{\"prompt\": \"class Stack:\\n    def push(self, item):\\n\", \"category\": \"class\"}\n"
    "{\"prompt\": \"import os\\n\\ndef main():\\n\", \"category\": \"short\"}\n";

/// The counts of every setting and category: what does not depend on the clock.
json counts_of(const json& report) {
  json counts;
  for (const json& pair : report["pairs"]) {
    for (const json& setting : pair["settings"]) {
      counts.push_back(setting["all"]["counts"]);
      for (const json& category : setting["categories"]) counts.push_back(category["counts"]);
    }
  }
  return counts;
}

}  // namespace

TEST_CASE("Data sets that cannot be used end bench with one line") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& text) {
    return refusal(bench_demo({"--dataset", written(folder, "data.jsonl", text)}));
  };
  CHECK_THAT(refused("{\"prompt\": \"x\"}\n{\"prompt\": \"y\n"),
             ContainsText("data.jsonl:2: no valid JSON") && ContainsText("--skip-bad"));
  CHECK_THAT(refused(""), ContainsText("the data set holds no prompt"));
  CHECK_THAT(refused("{\"story\": \"x\"}\n"),
             ContainsText("data.jsonl:1:") && ContainsText("no known format"));
  CHECK_THAT(refusal(bench_demo({"--dataset", "nowhere.jsonl"})),
             ContainsText("nowhere.jsonl: cannot be read"));
  CHECK_THAT(refusal(bench_demo({"--dataset", folder.path().string()})),
             ContainsText("cannot be read"));
  const std::string file = written(folder, "file", "x");
  CHECK_THAT(refusal(bench_demo({"--out", file})), ContainsText("cannot be written to"));
  CHECK_THAT(refusal(bench_demo({"--out", file + "/below"})), ContainsText("cannot be written to"));
}

TEST_CASE("Settings that cannot be measured end bench with one line") {
  CHECK_THAT(refusal({"bench"}), ContainsText("no model is given"));
  CHECK_THAT(refusal(bench_demo({"--num-speculative-tokens", "1,many"})),
             ContainsText("holds 'many'"));
  CHECK_THAT(refusal(bench_demo({"--num-speculative-tokens", "16"})), ContainsText("from 0 to 15"));
  CHECK_THAT(refusal(bench_demo({"--temperature", "-1"})), ContainsText("temperature is -1"));
  CHECK_THAT(refusal(bench_demo({"--rejection-sample-method", "hope"})),
             ContainsText("\"coupled\""));
  CHECK_THAT(refusal(bench_demo({"--method", "magic"})), ContainsText("\"ngram\""));
  CHECK_THAT(refusal(bench_demo({"--prompt-template", "x"})), ContainsText("{prompt}"));
  CHECK_THAT(refusal(bench_demo({"--config", "x.json"})), ContainsText("--main and --draft"));
}

TEST_CASE("bench reports what it measured, and goes on where it stopped") {
  const TemporaryFolder folder;
  const std::string data = written(folder, "data.jsonl", std::string(kPrompts) + "{\n");
  // With a fixed table "auto" chooses alike in every run.
  const std::string costs =
      written(folder, "costs.json",
              "{\"verify_seconds\": [1, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4], "
              "\"draft_first_seconds\": 0.12, \"draft_step_seconds\": 0.1}");
  const auto command = [&](const std::string& out, const std::string& lengths) {
    return bench_demo({"--dataset", data, "--skip-bad", "--max-tokens", "24", "--ignore-eos",
                       "--cost-table", costs, "--temperature", "0,0.8", "--rejection-sample-method",
                       "block,coupled", "--num-speculative-tokens", lengths, "--out",
                       (folder.path() / out).string(), "--json"});
  };
  const ProcessResult first = run_tandem(command("a", "0,2,4,auto"));
  INFO("stderr: " << first.err);
  REQUIRE(first.exit_code == 0);
  CHECK_THAT(first.err, ContainsText("data.jsonl:4: no valid JSON; skipped"));
  const json report = json::parse(first.out);
  CHECK(read(folder.path() / "a/report.json") == first.out);
  const json schema =
      json::parse(read(fs::path(TANDEM_SOURCE_DIR) / "docs/bench-report.schema.json"));
  CHECK(schema_violations(schema, report) == std::vector<std::string>{});

  const json& pair = report["pairs"].at(0);
  REQUIRE(pair["settings"].size() == 2 + 3 + 6);  // plain twice, greedy, two rules
  for (const json& setting : pair["settings"]) {
    INFO(setting["label"]);
    const json& all = setting["all"];
    CHECK(all["num_prompts"] == 3);
    CHECK(all["counts"]["num_tokens"] == 72);
    CHECK(setting["categories"].size() == 2);
    if (setting["same_text_promised"] == true) CHECK(all["same_text_rate"]["value"] == 1.0);
    const bool has_probabilities =
        setting["temperature"] > 0 && setting["num_speculative_tokens"] != 0;
    CHECK(all["expected_acceptance"].is_object() == has_probabilities);
  }
  CHECK(pair["settings"][0]["all"]["ratio_to_plain"]["value"] == 1.0);
  CHECK(pair["cost_table"]["verify_seconds"].size() == 9);
  REQUIRE(pair["what_if"].size() == 3);
  const json& what_if = pair["what_if"][0];
  CHECK(what_if["rows"].size() == 8);
  CHECK(what_if["rows"][0]["measured_ratio_to_plain"].is_null());
  CHECK(what_if["rows"][1]["measured_ratio_to_plain"].is_object());
  const json& predicted = what_if["rows"][3]["predicted_ratio_to_plain"];
  CHECK(predicted["fp8 draft"] > predicted["as measured"]);
  CHECK(predicted["int4 draft"] > predicted["fp8 draft"]);
  CHECK(predicted["draft on its own device"] > predicted["int4 draft"]);

  const std::string html = read(folder.path() / "a/report.html");
  CHECK_THAT(html, ContainsText("<svg") && ContainsText("Acceptance by position") &&
                       ContainsText("Time per phase"));
  CHECK(html.find("http") == std::string::npos);  // nothing is fetched

  // Every line is there: nothing is measured again, and the counts are the same.
  const std::string journal = read(folder.path() / "a/journal.jsonl");
  const ProcessResult again = run_tandem(command("a", "0,2,4,auto"));
  REQUIRE(again.exit_code == 0);
  CHECK(read(folder.path() / "a/journal.jsonl") == journal);
  CHECK(counts_of(json::parse(again.out)) == counts_of(report));

  // A run that was killed in the middle of a line goes on.
  fs::resize_file(folder.path() / "a/journal.jsonl", journal.size() * 2 / 3);
  const ProcessResult resumed = run_tandem(command("a", "0,2,4,auto"));
  REQUIRE(resumed.exit_code == 0);
  CHECK(counts_of(json::parse(resumed.out)) == counts_of(report));

  CHECK_THAT(refusal(command("a", "2")), ContainsText("journal.jsonl: was begun with settings"));
  written(folder, "a/journal.jsonl", "{}\n");
  CHECK_THAT(refusal(command("a", "2")), ContainsText("journal.jsonl:1: no line of a benchmark"));

  const ProcessResult other = run_tandem(command("b", "0,2,4,auto"));
  REQUIRE(other.exit_code == 0);
  CHECK(counts_of(json::parse(other.out)) == counts_of(report));
}

TEST_CASE("Without a cost table rounds are timed in turns with what they predict") {
  const TemporaryFolder folder;
  const std::string data = written(folder, "data.jsonl", kPrompts);
  const auto command = bench_demo({"--dataset", data, "--max-tokens", "24", "--ignore-eos",
                                   "--num-speculative-tokens", "2,auto", "--temperature", "0,0.8",
                                   "--out", (folder.path() / "out").string(), "--json"});
  const ProcessResult first = run_tandem(command);
  REQUIRE(first.exit_code == 0);
  const json report = json::parse(first.out);
  const json schema =
      json::parse(read(fs::path(TANDEM_SOURCE_DIR) / "docs/bench-report.schema.json"));
  CHECK(schema_violations(schema, report) == std::vector<std::string>{});
  const json& pair = report["pairs"][0];
  CHECK(pair["settings"].size() == 6);  // those that time rounds are not among them
  CHECK_THAT(pair["draft_variants"]["as measured"].get<std::string>(),
             ContainsText("timed in turns"));
  REQUIRE(pair["what_if"].size() == 2);
  for (const json& table : pair["what_if"]) {
    CHECK(table["cost_table"]["verify_seconds"].size() == 9);
    CHECK(table["cost_table"] != pair["cost_table"]);
    CHECK(table["rows"][0]["difference"].is_null());
    const json& row = table["rows"][1];
    CHECK(row["difference"].get<double>() ==
          Approx(row["predicted_ratio_to_plain"]["as measured"].get<double>() /
                     row["measured_ratio_to_plain"]["value"].get<double>() -
                 1));
  }
  CHECK_THAT(read(folder.path() / "out/journal.jsonl"), ContainsText("timing K=8 block"));
  // What was timed is kept like everything else.
  const ProcessResult again = run_tandem(command);
  REQUIRE(again.exit_code == 0);
  CHECK(json::parse(again.out)["pairs"][0]["what_if"] == pair["what_if"]);
}

TEST_CASE("Made-up acceptance is met by every setting, and announced everywhere") {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "out").string();
  std::vector<std::string> options = {"--limit",
                                      "4",
                                      "--max-tokens",
                                      "200",
                                      "--num-speculative-tokens",
                                      tandem::test::kSanitized ? "3" : "1,3,6",
                                      "--temperature",
                                      tandem::test::kSanitized ? "0.8" : "0,0.8",
                                      "--synthetic-acceptance-length",
                                      "2.4",
                                      "--out",
                                      out};
  const ProcessResult people = run_tandem(bench_demo(options));
  REQUIRE(people.exit_code == 0);
  CHECK(people.out.starts_with("SYNTHETIC: acceptance length 2.4"));
  CHECK_THAT(people.out, ContainsText("[SYNTHETIC]"));
  CHECK_THAT(read(out + "/report.html"),
             ContainsText("tandem bench (synthetic)") && ContainsText("the text means nothing"));
  const json report = json::parse(read(out + "/report.json"));
  const json schema =
      json::parse(read(fs::path(TANDEM_SOURCE_DIR) / "docs/bench-report.schema.json"));
  CHECK(schema_violations(schema, report) == std::vector<std::string>{});
  CHECK_THAT(report["synthetic"].get<std::string>(), ContainsText("acceptance length 2.4"));
  for (const json& setting : report["pairs"][0]["settings"]) {
    INFO(setting["label"]);
    const json& all = setting["all"];
    CHECK(all["counts"]["num_tokens"] == 800);  // no text has an end of its own
    CHECK(all["same_text_rate"].is_null());
    CHECK(setting["same_text_promised"] == false);
    const int k = setting["num_speculative_tokens"].get<int>();
    const double length = all["mean_acceptance_length"]["value"].get<double>();
    CHECK(length == Approx(k == 0 ? 1 : k == 1 ? 2 : 2.4).epsilon(0.01));
  }
  CHECK_THAT(refusal(bench_demo({"--synthetic-acceptance-length", "12"})),
             ContainsText("11 drafts a round, of which 8"));
  CHECK_THAT(refusal(bench_demo({"--synthetic-acceptance-rates", "0.2,0.3"})),
             ContainsText("rates that rise"));
  CHECK_THAT(refusal(bench_demo({"--synthetic-acceptance-length", "2", "--method", "none"})),
             ContainsText("something that drafts"));
}

TEST_CASE("A conversation's turns follow each other") {
  const TemporaryFolder folder;
  const std::string data = written(
      folder, "turns.jsonl",
      "{\"question_id\": 1, \"category\": \"c\", \"turns\": [\"def f(x):\", \"def g(x):\"]}\n");
  const auto texts = [&](const std::string& turns) {
    const ProcessResult result =
        run_tandem(bench_demo({"--dataset", data, "--max-tokens", "16", "--max-turns", turns,
                               "--num-speculative-tokens", "3", "--json"}));
    REQUIRE(result.exit_code == 0);
    return json::parse(result.out)["pairs"][0]["settings"][1]["all"];
  };
  const json one = texts("1"), both = texts("0");
  CHECK(one["num_texts"] == 1);
  CHECK(both["num_texts"] == 2);
  CHECK(both["counts"]["num_tokens"] == 32);
  CHECK(both["same_text_rate"]["value"] == 1.0);
  // The second prompt holds the first turn and its answer.
  CHECK(both["counts"]["num_prompt_tokens"].get<int>() >
        2 * one["counts"]["num_prompt_tokens"].get<int>() + 16);
}

TEST_CASE("Ctrl-C reports what is done, and the next run goes on") {
  const TemporaryFolder folder;
  const fs::path out = folder.path() / "out";
  const auto command =
      bench_demo({"--max-tokens", "40", "--limit", "16", "--num-speculative-tokens", "4", "--out",
                  out.string(), "--json"});
  const auto lines = [&] {
    const std::string journal = read(out / "journal.jsonl");
    return std::count(journal.begin(), journal.end(), '\n');
  };
  Process running(TANDEM_BINARY, command);
  running.close_input();
  while (lines() < 4) usleep(10000);
  running.signal(SIGINT);
  const ProcessResult stopped = running.wait();
  CHECK(stopped.exit_code == 1);
  const json report = json::parse(stopped.out);
  CHECK(report["interrupted"] == true);
  const int samples = report["pairs"][0]["settings"][1]["all"]["num_samples"].get<int>();
  CHECK(samples >= 1);
  CHECK(samples < 16);

  const ProcessResult finished = run_tandem(command);
  CHECK(finished.exit_code == 0);
  CHECK(json::parse(finished.out)["pairs"][0]["settings"][1]["all"]["num_samples"] == 16);
}
