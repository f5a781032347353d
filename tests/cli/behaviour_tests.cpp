#include <signal.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "cli/run_tandem.h"
#include "support/catch.h"

using namespace tandem::testing;
using nlohmann::json;

namespace {

const std::string kPrompt = "def fibonacci(n):\n";

/// Standard output of a command that must succeed.
std::string output_of(const std::vector<std::string>& arguments, const std::string& input = {}) {
  const ProcessResult result = run_tandem(arguments, input);
  INFO("stderr: " << result.err);
  CHECK(result.exit_code == 0);
  return result.out;
}

std::vector<json> objects_of(const std::vector<std::string>& arguments) {
  std::vector<json> objects;
  std::istringstream lines(output_of(arguments));
  for (std::string line; std::getline(lines, line);) objects.push_back(json::parse(line));
  return objects;
}

json object_of(const std::vector<std::string>& arguments) {
  const std::vector<json> objects = objects_of(arguments);
  REQUIRE(objects.size() == 1);
  return objects.front();
}

std::set<std::string> keys_of(const json& object) {
  std::set<std::string> keys;
  for (const auto& item : object.items()) keys.insert(item.key());
  return keys;
}

}  // namespace

TEST_CASE("generate streams text to stdout and a summary to stderr") {
  const ProcessResult result = run_tandem(
      generate_demo({"--prompt", kPrompt, "--max-tokens", "30", "--num-speculative-tokens", "4"}));
  CHECK(result.exit_code == 0);
  const json object =
      object_of(generate_demo({"--prompt", kPrompt, "--max-tokens", "30", "--json"}));
  CHECK(result.out == object["text"].get<std::string>());
  for (const char* part :
       {"acceptance rate", "mean acceptance length", "tokens per second", "rounds", "seed"}) {
    CHECK_THAT(result.err, ContainsText(part));
  }
}

TEST_CASE("generate --json prints the documented object and nothing on stderr") {
  const ProcessResult result = run_tandem(generate_demo(
      {"--prompt", kPrompt, "--max-tokens", "40", "--json", "--num-speculative-tokens", "4"}));
  CHECK(result.err.empty());
  const json object = json::parse(result.out);
  CHECK(keys_of(object) == std::set<std::string>{"text", "token_ids", "prompt_token_ids",
                                                 "finish_reason", "seed", "stats"});
  const json& stats = object["stats"];
  CHECK(keys_of(stats) == std::set<std::string>{"num_rounds", "num_drafts", "num_draft_tokens",
                                                "num_accepted_tokens", "acceptance_rate",
                                                "mean_acceptance_length",
                                                "acceptance_rate_per_position", "prefill_seconds",
                                                "decode_seconds", "draft_seconds", "verify_seconds",
                                                "tokens_per_second", "time_to_first_token_seconds",
                                                "mean_draft_length", "draft_lengths", "memory"});
  std::set<std::string> purposes;
  REQUIRE_FALSE(stats["memory"].empty());
  for (const json& use : stats["memory"]) {
    CHECK(keys_of(use) ==
          std::set<std::string>{"device", "model", "purpose", "planned_bytes", "actual_bytes"});
    purposes.insert(use["model"].get<std::string>() + " " + use["purpose"].get<std::string>());
    if (use["purpose"] == "weights") {
      CHECK(use["planned_bytes"] > 0);
      CHECK(use["actual_bytes"] == use["planned_bytes"]);
    }
  }
  CHECK(purposes.count("draft weights") == 1);
  CHECK(purposes.count("main kv_cache") == 1);
  const double drafted = stats["num_draft_tokens"], accepted = stats["num_accepted_tokens"];
  const double drafts = stats["num_drafts"],
               tokens = static_cast<double>(object["token_ids"].size());
  CHECK(stats["acceptance_rate"] == Approx(accepted / drafted));
  CHECK(stats["mean_acceptance_length"] == Approx(1 + accepted / drafts));
  CHECK(stats["tokens_per_second"] == Approx((tokens - 1) / stats["decode_seconds"].get<double>()));
  CHECK(stats["acceptance_rate_per_position"].size() + 1 == stats["draft_lengths"].size());
  double sum = 0;
  for (const double rate : stats["acceptance_rate_per_position"]) sum += rate;
  CHECK(sum == Approx(accepted / drafts));
  CHECK(object["finish_reason"] == "length");
  CHECK(tokens == 40);
  CHECK(tokens == accepted + stats["num_rounds"].get<double>());
}

TEST_CASE("A checkpoint whose tensors lie at odd addresses gives the same text") {
  const ModelFolder odd(demo_draft());
  odd.edit_bytes("model.safetensors", [](std::string& bytes) {
    bytes.insert(bytes.find('}') + 1, " ");  // inside the header, whose length was a multiple of 8
    ++bytes.front();
  });
  const auto text_of = [](const std::string& folder) {
    return output_of({"generate", "--main", folder, "--prompt", kPrompt, "--max-tokens", "30"});
  };
  CHECK(text_of(odd.string()) == text_of(demo_draft().string()));
}

TEST_CASE("The prompt is treated as tokenize --special does") {
  const json object =
      object_of(generate_demo({"--prompt", kPrompt, "--max-tokens", "1", "--json"}));
  const json ids =
      json::parse(output_of({"tokenize", "--model", demo_main().string(), "--special"}, kPrompt));
  CHECK(object["prompt_token_ids"] == ids);
}

TEST_CASE("A prompt comes from the command line, a file or standard input, byte for byte") {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "prompt.txt").string();
  for (const std::string& prompt :
       {kPrompt, std::string("[1, 2]"), std::string("{}"), std::string("--x"),
        std::string("-5 %% 'a' \"b\"\n"), std::string("größer ≥ 日本")}) {
    std::ofstream(file, std::ios::binary) << prompt;
    const std::vector<std::string> rest = {"--max-tokens", "1", "--json"};
    const auto with = [&](std::vector<std::string> options) {
      options.insert(options.end(), rest.begin(), rest.end());
      return generate_demo(options);
    };
    const json direct = object_of(with({"--prompt", prompt}))["prompt_token_ids"];
    CHECK(object_of(with({"--prompt-file", file}))["prompt_token_ids"] == direct);
    CHECK(json::parse(output_of(with({"--prompt-file", "-"}), prompt))["prompt_token_ids"] ==
          direct);
    CHECK(json::parse(output_of({"tokenize", "--model", demo_main().string(), "--special"},
                                prompt)) == direct);
  }
}

TEST_CASE("Drafting does not change greedy text") {
  const std::vector<std::string> common = {"--prompt", kPrompt, "--max-tokens", "60"};
  const auto with = [&](const std::vector<std::string>& options) {
    std::vector<std::string> all = common;
    all.insert(all.end(), options.begin(), options.end());
    return output_of(generate_demo(all));
  };
  const std::string plain = with({"--method", "none"});
  CHECK(plain == with({}));
  CHECK(plain == with({"--num-speculative-tokens", "7"}));
  CHECK(plain == with({"--method", "ngram"}));
  CHECK(plain == with({"--num-speculative-tokens", "0"}));
}

TEST_CASE("--n prints one object a line, with consecutive seeds") {
  const auto objects =
      objects_of(generate_demo({"--prompt", kPrompt, "--max-tokens", "20", "--temperature", "1",
                                "--seed", "7", "--n", "3", "--json"}));
  REQUIRE(objects.size() == 3);
  for (int i = 0; i < 3; ++i) {
    const json& object = objects[static_cast<size_t>(i)];
    CHECK(object["seed"] == 7 + i);
    const json alone =
        object_of(generate_demo({"--prompt", kPrompt, "--max-tokens", "20", "--temperature", "1",
                                 "--seed", std::to_string(7 + i), "--json"}));
    CHECK(object["token_ids"] == alone["token_ids"]);
  }
  CHECK(objects[0]["text"] != objects[1]["text"]);
}

TEST_CASE("A seed that was drawn is reported and gives the same text again") {
  const std::vector<std::string> options = {"--prompt",      kPrompt, "--max-tokens", "20",
                                            "--temperature", "1",     "--json"};
  const json first = object_of(generate_demo(options)), second = object_of(generate_demo(options));
  CHECK(first["seed"] != second["seed"]);
  std::vector<std::string> again = options;
  again.insert(again.end(), {"--seed", first["seed"].dump()});
  CHECK(object_of(generate_demo(again))["token_ids"] == first["token_ids"]);
}

TEST_CASE("--stop may be given several times") {
  const json whole =
      object_of(generate_demo({"--prompt", kPrompt, "--max-tokens", "60", "--json"}));
  const std::string text = whole["text"];
  const size_t end = text.find("return");
  REQUIRE(end != std::string::npos);
  const json stopped = object_of(generate_demo({"--prompt", kPrompt, "--max-tokens", "60", "--json",
                                                "--stop", "[never, here]", "--stop", "return"}));
  CHECK(stopped["text"] == text.substr(0, end));
  CHECK(stopped["finish_reason"] == "stop");
}

TEST_CASE("--logprobs adds what was asked for") {
  const json object = object_of(
      generate_demo({"--prompt", kPrompt, "--max-tokens", "5", "--logprobs", "3", "--json"}));
  REQUIRE(object["logprobs"].size() == 5);
  for (size_t i = 0; i < 5; ++i) {
    const json& entry = object["logprobs"][i];
    CHECK(entry["token"] == object["token_ids"][i]);
    REQUIRE(entry["top"].size() == 3);
    CHECK(entry["top"][0] == json({{"token", entry["token"]}, {"logprob", entry["logprob"]}}));
  }
}

TEST_CASE("--baseline compares with plain decoding") {
  const ProcessResult people =
      run_tandem(generate_demo({"--prompt", kPrompt, "--max-tokens", "20", "--baseline"}));
  CHECK_THAT(people.err, ContainsText("times as fast, same tokens"));
  const json object =
      object_of(generate_demo({"--prompt", kPrompt, "--max-tokens", "20", "--baseline", "--json"}));
  CHECK(object["baseline"]["same_tokens"] == true);
  CHECK(object["baseline"]["ratio"] ==
        Approx(object["stats"]["tokens_per_second"].get<double>() /
               object["baseline"]["tokens_per_second"].get<double>()));
  const json coupled =
      object_of(generate_demo({"--prompt", kPrompt, "--max-tokens", "20", "--baseline", "--json",
                               "--temperature", "1", "--rejection-sample-method", "coupled"}));
  CHECK(coupled["baseline"]["same_tokens"] == true);
}

TEST_CASE("Made-up acceptance is met, and announced everywhere") {
  const std::vector<std::string> options = {"--prompt",
                                            kPrompt,
                                            "--num-speculative-tokens",
                                            "5",
                                            "--synthetic-acceptance-length",
                                            "2.75",
                                            "--max-tokens",
                                            "600"};
  std::vector<std::string> arguments = generate_demo(options);
  const ProcessResult people = run_tandem(arguments);
  CHECK(people.exit_code == 0);
  CHECK_THAT(people.err,
             ContainsText("warning: SYNTHETIC acceptance length 2.75") &&
                 ContainsText("\nSYNTHETIC acceptance length 2.75: the text means nothing"));
  arguments.insert(arguments.end(), {"--json", "--baseline"});
  const ProcessResult result = run_tandem(arguments);
  CHECK_THAT(result.err, ContainsText("warning: SYNTHETIC"));
  const json object = json::parse(result.out);
  CHECK(object["synthetic"] == "acceptance length 2.75");
  CHECK(object["token_ids"].size() == 600);
  CHECK(object["stats"]["mean_acceptance_length"] == Approx(2.75).epsilon(0.01));
  CHECK(object["baseline"]["ratio"] > 0);
  const json by_rates =
      object_of(generate_demo({"--prompt", kPrompt, "--num-speculative-tokens", "4", "--max-tokens",
                               "900", "--json", "--synthetic-acceptance-rates", "0.9,0.4"}));
  CHECK(by_rates["synthetic"] == "acceptance rates 0.9, 0.4");
  const json& rates = by_rates["stats"]["acceptance_rate_per_position"];
  CHECK(rates[0] == Approx(0.9).margin(0.01));
  CHECK(rates[1] == Approx(0.4).margin(0.01));
  CHECK(rates[2] == 0.0);
}

TEST_CASE("--output receives what standard output would") {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "text").string();
  const std::vector<std::string> options = {"--prompt", kPrompt, "--max-tokens", "20"};
  std::vector<std::string> to_file = options;
  to_file.insert(to_file.end(), {"--output", file, "--color"});
  CHECK(output_of(generate_demo(to_file)).empty());
  std::ifstream stream(file);
  const std::string written{std::istreambuf_iterator<char>(stream),
                            std::istreambuf_iterator<char>()};
  CHECK(written == output_of(generate_demo(options)));
}

TEST_CASE("A configuration file works, and options override it") {
  const std::string config = std::string(TANDEM_SOURCE_DIR) + "/configs/demo.json";
  // K is given: what "auto" chooses depends on how busy the machine is.
  const json object = object_of({"generate", "--config", config, "--prompt", kPrompt, "--json",
                                 "--num-speculative-tokens", "4"});
  CHECK(object["token_ids"].size() <= 200);
  CHECK(object["stats"]["num_drafts"] > 0);
  const json changed = object_of({"generate", "--config", config, "--prompt", kPrompt, "--json",
                                  "--max-tokens", "3", "--method", "none"});
  CHECK(changed["token_ids"].size() == 3);
  CHECK(changed["stats"]["num_drafts"] == 0);
}

TEST_CASE("Ctrl-C ends the text early and prints what there is") {
  Process process(TANDEM_BINARY,
                  generate_demo({"--prompt", kPrompt, "--max-tokens", "2000", "--ignore-eos"}));
  std::string text = process.read_some();
  CHECK_FALSE(text.empty());
  process.signal(SIGINT);
  const ProcessResult result = process.wait();
  CHECK(result.exit_code == 1);
  CHECK_THAT(result.err, ContainsText("cancelled"));
}

TEST_CASE("tokenize turns text into ids and back") {
  const std::string model = demo_main().string();
  const std::string text = "def f(x):\n    return '日本 <|end_of_text|>'\n";
  const std::string ids = output_of({"tokenize", "--model", model}, text);
  const json list = json::parse(ids);
  CHECK(std::count(list.begin(), list.end(), 0) == 0);
  CHECK(std::count(list.begin(), list.end(), 1) == 0);
  CHECK(output_of({"tokenize", "--model", model, "--decode"}, ids) == text);
  const json special = json::parse(output_of({"tokenize", "--model", model, "--special"}, text));
  CHECK(special.front() == 0);
  CHECK(std::count(special.begin(), special.end(), 1) == 1);
  CHECK(output_of({"tokenize", "--model", model, "--decode", "--special"}, special.dump()) ==
        "<|begin_of_text|>" + text);
  CHECK(output_of({"tokenize", "--model", model, "--decode"}, "") == "");
  CHECK(output_of({"tokenize", "--model", model}, "") == "[]\n");
}

TEST_CASE("logits prints a row for each position and needs no tokenizer") {
  const ModelFolder model(demo_draft());
  model.remove("tokenizer.json");
  model.remove("tokenizer_config.json");
  const json object =
      object_of({"logits", "--model", model.string(), "--ids", "0,17,23", "--top", "4", "--json"});
  CHECK(keys_of(object) == std::set<std::string>{"top_ids", "top_logits", "logsumexp"});
  REQUIRE(object["top_ids"].size() == 3);
  REQUIRE(object["logsumexp"].size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    REQUIRE(object["top_ids"][i].size() == 4);
    const std::vector<double> logits = object["top_logits"][i];
    CHECK(std::is_sorted(logits.rbegin(), logits.rend()));
    CHECK(object["logsumexp"][i].get<double>() > logits.front());
  }
  const std::string table = output_of({"logits", "--model", model.string(), "--ids", "0,17,23"});
  CHECK(std::count(table.begin(), table.end(), '\n') == 4);
}

TEST_CASE("devices lists the processor") {
  const json list = json::parse(output_of({"devices", "--json"}));
  const bool has_cpu = std::any_of(list.begin(), list.end(), [](const json& device) {
    return device["device"] == "cpu:0" && device["capacity_bytes"] > 0 &&
           device.contains("free_bytes");
  });
  CHECK(has_cpu);
  CHECK_THAT(output_of({"devices"}), ContainsText("cpu:0"));
}

TEST_CASE("A pair that does not fit in memory has an exit code of its own") {
  const ProcessResult result = run_tandem(generate_demo({"--prompt", "x", "--device", "cpu=8MiB"}));
  CHECK(result.exit_code == 3);
  CHECK(result.out.empty());
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  CHECK_THAT(result.err, ContainsText("tandem: error: ") && ContainsText("cpu:0"));
}

TEST_CASE("Help and version go to standard output") {
  CHECK_THAT(output_of({"--help"}), ContainsText("generate") && ContainsText("Exit codes"));
  CHECK_THAT(output_of({"--version"}), ContainsText("tandem "));
  for (const std::string command : {"generate", "tokenize", "logits", "devices"}) {
    CHECK_THAT(output_of({command, "--help"}),
               ContainsText("Examples:\n  ") && ContainsText("tandem " + command));
  }
}
