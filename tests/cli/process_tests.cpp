// The command in two processes, on simulated devices.

#include <signal.h>

#include <chrono>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "cli/run_tandem.h"
#include "support/catch.h"
#include "support/free_port.h"
#include "support/temporary_folder.h"

using namespace tandem::testing;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

const std::string kPrompt = "def fibonacci(n):\n";

/// How a process is started that is told its place by torchrun's variables.
std::vector<std::string> launched(int rank, int port, std::vector<std::string> command) {
  std::vector<std::string> arguments = {
      "RANK=" + std::to_string(rank),        "WORLD_SIZE=2",
      "LOCAL_RANK=" + std::to_string(rank),  "MASTER_ADDR=127.0.0.1",
      "MASTER_PORT=" + std::to_string(port), TANDEM_BINARY};
  arguments.insert(arguments.end(), command.begin(), command.end());
  return arguments;
}

/// Two processes of one command each.
struct TwoProcesses {
  Process first, second;

  explicit TwoProcesses(const std::vector<std::string>& command, int port = free_port())
      : TwoProcesses(command, command, port) {}
  TwoProcesses(const std::vector<std::string>& of_first, const std::vector<std::string>& of_second,
               int port = free_port())
      : first("/usr/bin/env", launched(0, port, of_first)),
        second("/usr/bin/env", launched(1, port, of_second)) {}
};

/// A configuration file of the bundled pair.
std::string config_file(const TemporaryFolder& folder, const std::string& split,
                        const std::string& draft_length = "4") {
  const auto path = folder.path() / ("pair-" + split + ".json");
  std::ofstream(path) << json{
      {"main", {{"model", demo_main().string()}, {"devices", "cpu"}, {"split", split}}},
      {"draft", {{"model", demo_draft().string()}}},
      {"speculation",
       {{"num_speculative_tokens", std::stoi(draft_length)},
        {"cost_table", demo_cost_table().string()}}},
      {"sampling", {{"max_tokens", 60}}}};
  return path.string();
}

std::vector<std::string> generate(const std::string& config,
                                  const std::vector<std::string>& more = {}) {
  std::vector<std::string> command = {"generate", "--config",  config, "--prompt",
                                      kPrompt,    "--threads", "1"};
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

/// Text that takes long enough to be interrupted.
std::vector<std::string> endless(const std::string& config) {
  return generate(config, {"--max-tokens", "900", "--ignore-eos", "--n", "50"});
}

}  // namespace

TEST_CASE("two processes write one process's text, with either split") {
  const TemporaryFolder folder;
  const std::string split = GENERATE("tensor", "layer");
  const std::string config = config_file(folder, split);
  const std::string length = GENERATE("0", "4");
  const std::vector<std::string> options = {"--json", "--num-speculative-tokens", length};
  const ProcessResult expected = run_tandem(generate(config, options));
  REQUIRE(expected.exit_code == 0);
  TwoProcesses both(generate(config, options));
  const ProcessResult first = both.first.wait(), second = both.second.wait();
  INFO("stderr of rank 0: " << first.err << "\nstderr of rank 1: " << second.err);
  REQUIRE(first.exit_code == 0);
  CHECK(second.exit_code == 0);
  CHECK(second.out.empty());
  const json ours = json::parse(first.out), theirs = json::parse(expected.out);
  CHECK(ours["token_ids"] == theirs["token_ids"]);
  CHECK(ours["text"] == theirs["text"]);
  CHECK(ours["stats"]["num_rounds"] == theirs["stats"]["num_rounds"]);
}

TEST_CASE("a text depends on the seed, not on the number of processes") {
  const TemporaryFolder folder;
  const std::string config = config_file(folder, "layer");
  const std::vector<std::string> options = {"--json", "--temperature", "0.9", "--seed",
                                            "5",      "--n",           "2"};
  const ProcessResult expected = run_tandem(generate(config, options));
  TwoProcesses both(generate(config, options));
  const ProcessResult first = both.first.wait(), second = both.second.wait();
  INFO("stderr of rank 0: " << first.err << "\nstderr of rank 1: " << second.err);
  REQUIRE(first.exit_code == 0);
  CHECK(second.exit_code == 0);
  std::istringstream ours(first.out), theirs(expected.out);
  int compared = 0;
  for (std::string a, b; std::getline(ours, a) && std::getline(theirs, b); ++compared) {
    CHECK(json::parse(a)["token_ids"] == json::parse(b)["token_ids"]);
  }
  CHECK(compared == 2);
}

TEST_CASE("processes may have several devices each, and rank 0's draft one of its own") {
  const TemporaryFolder folder;
  const std::string split = GENERATE("tensor", "layer");
  const std::string config = config_file(folder, split);
  const std::vector<std::string> options = {"--json", "--max-tokens", "30"};
  const ProcessResult expected = run_tandem(generate(config, options));
  json changed = json::parse(std::ifstream(config));
  changed["main"]["devices"] = "cpu:0,cpu:1";
  changed["draft"]["device"] = "cpu:2";
  std::ofstream(config) << changed;
  TwoProcesses both(generate(config, options));
  const ProcessResult first = both.first.wait(), second = both.second.wait();
  INFO("stderr of rank 0: " << first.err << "\nstderr of rank 1: " << second.err);
  REQUIRE(first.exit_code == 0);
  CHECK(second.exit_code == 0);
  const json ours = json::parse(first.out);
  CHECK(ours["token_ids"] == json::parse(expected.out)["token_ids"]);
  std::set<std::string> devices;
  for (const json& use : ours["stats"]["memory"]) {
    devices.insert(use["device"]);
    CHECK(use["planned_bytes"] == use["actual_bytes"]);
  }
  CHECK(devices == std::set<std::string>{"rank 0's cpu:0", "rank 0's cpu:1", "rank 0's cpu:2",
                                         "rank 1's cpu:0", "rank 1's cpu:1"});
}

TEST_CASE("processes whose configurations, models or prompts are wrong end with one line each") {
  const TemporaryFolder folder;
  const std::string tensor = config_file(folder, "tensor"), layer = config_file(folder, "layer");
  const auto both_say = [](TwoProcesses& both, const std::string& what, int first_code,
                           int second_code) {
    const ProcessResult first = both.first.wait(), second = both.second.wait();
    for (const ProcessResult* result : {&first, &second}) {
      CHECK_THAT(result->err, ContainsText(what));
      CHECK(result->err.find('\n') == result->err.size() - 1);
      CHECK(result->out.empty());
    }
    CHECK(first.exit_code == first_code);
    CHECK(second.exit_code == second_code);
  };
  SECTION("another split") {
    TwoProcesses both(generate(tensor), generate(layer));
    both_say(both,
             "rank 1 (cpu) has another configuration than rank 0: main.split is \"layer\" there "
             "and \"tensor\" at rank 0",
             2, 2);
  }
  SECTION("another model") {
    TwoProcesses both(generate(tensor), generate(tensor, {"--main", demo_draft().string()}));
    both_say(both, "rank 1 (cpu) has another main model than rank 0", 2, 2);
  }
  SECTION("a folder that is missing in one process") {
    TwoProcesses both(generate(tensor), generate(tensor, {"--main", "/nowhere"}));
    both_say(both, "/nowhere", 1, 2);
  }
  SECTION("a device that is too small") {
    TwoProcesses both(generate(tensor), generate(tensor, {"--device", "cpu:0=1MiB"}));
    both_say(both, "rank 1's cpu:0 is ", 3, 3);
  }
  SECTION("no prompt") {
    const std::vector<std::string> command = {"generate", "--config", tensor, "--prompt", ""};
    TwoProcesses both(command);
    both_say(both, "the prompt is empty", 2, 1);
  }
}

TEST_CASE("processes that never come, and ports that are taken, end with one line") {
  const TemporaryFolder folder;
  const auto command = generate(config_file(folder, "layer"), {"--join-timeout", "0.5"});
  Process alone("/usr/bin/env", launched(0, free_port(), command));
  const ProcessResult result = alone.wait();
  CHECK(result.exit_code == 1);
  CHECK_THAT(result.err, ContainsText("rank 1 never came to 127.0.0.1:"));
  const tandem::Listener other("127.0.0.1", 0);
  Process refused("/usr/bin/env", launched(0, other.port(), command));
  CHECK_THAT(refused.wait().err, ContainsText("cannot listen on port"));
}

TEST_CASE("commands for one process refuse to be several") {
  const std::vector<std::string> command = {"bench", "--config", "x.json"};
  Process bench("/usr/bin/env", launched(0, free_port(), command));
  const ProcessResult result = bench.wait();
  CHECK(result.exit_code == 2);
  CHECK_THAT(result.err, ContainsText("runs in one process, but torchrun started 2"));
}

TEST_CASE("a process killed in the middle of a text ends the other one, which names it") {
  const TemporaryFolder folder;
  const std::string split = GENERATE("tensor", "layer");
  TwoProcesses both(endless(config_file(folder, split)));
  REQUIRE_FALSE(both.first.read_some().empty());  // text: the middle of it
  const bool kill_first = GENERATE(false, true);
  const auto begin = std::chrono::steady_clock::now();
  (kill_first ? both.first : both.second).signal(SIGKILL);
  const ProcessResult left = (kill_first ? both.second : both.first).wait();
  const auto took = std::chrono::steady_clock::now() - begin;
  INFO("stderr: " << left.err);
  CHECK(left.exit_code == 1);
  CHECK_THAT(left.err, ContainsText(std::string("rank ") + (kill_first ? "0" : "1") +
                                    " (cpu) ended unexpectedly"));
  CHECK(took < 15s);
}

TEST_CASE(
    "a process stopped in the middle of a text ends the other one, and itself when it wakes") {
  const TemporaryFolder folder;
  const bool stop_first = GENERATE(false, true);
  TwoProcesses both(endless(config_file(folder, "tensor")));
  REQUIRE_FALSE(both.first.read_some().empty());
  Process& stopped = stop_first ? both.first : both.second;
  const auto begin = std::chrono::steady_clock::now();
  stopped.signal(SIGSTOP);
  const ProcessResult left = (stop_first ? both.second : both.first).wait();
  const auto took = std::chrono::steady_clock::now() - begin;
  INFO("stderr: " << left.err);
  CHECK(left.exit_code == 1);
  CHECK_THAT(left.err, ContainsText(std::string("rank ") + (stop_first ? "0" : "1") +
                                    " (cpu) has been silent for 6 s"));
  CHECK(took < 15s);
  stopped.signal(SIGCONT);
  CHECK(stopped.wait().exit_code == 1);
}

TEST_CASE("Ctrl-C ends the text of all processes in good order") {
  const TemporaryFolder folder;
  TwoProcesses both(endless(config_file(folder, "layer")));
  REQUIRE_FALSE(both.first.read_some().empty());
  both.second.signal(SIGINT);  // a terminal tells all of them
  both.first.signal(SIGINT);
  const ProcessResult first = both.first.wait(), second = both.second.wait();
  INFO("stderr: " << first.err << second.err);
  CHECK(first.exit_code == 1);
  CHECK_THAT(first.err, ContainsText("cancelled"));
  CHECK(second.exit_code == 0);
}
