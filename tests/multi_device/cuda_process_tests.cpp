// The command in two processes of one GPU each; skipped, saying so, where there are no two GPUs.

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>

#include "backend/backend.h"
#include "cli/run_tandem.h"
#include "comm/nccl_communicator.h"
#include "support/catch.h"
#include "support/free_port.h"

using namespace tandem::testing;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

bool two_gpus() {
  int gpus = 0;
  for (const tandem::DeviceInfo& device : tandem::list_devices()) {
    gpus += device.id.kind == tandem::DeviceKind::kCuda;
  }
  if (tandem::has_nccl() && gpus >= 2) return true;
  WARN("no two GPUs with NCCL: this test was skipped");
  return false;
}

/// A configuration file of the bundled pair; "auto" devices are the local rank's GPU.
std::string config_file(const TemporaryFolder& folder, const std::string& split,
                        const std::string& devices = "auto") {
  const auto path = folder.path() / ("pair-" + split + devices + ".json");
  std::ofstream(path) << json{
      {"main", {{"model", demo_main().string()}, {"devices", devices}, {"split", split}}},
      {"draft", {{"model", demo_draft().string()}}},
      {"communication", {{"all_reduce", devices == "auto" ? "auto" : "nccl"}}},
      {"speculation", {{"num_speculative_tokens", 4}, {"cost_table", demo_cost_table().string()}}}};
  return path.string();
}

std::vector<std::string> generate(const std::string& config, const std::vector<std::string>& more) {
  std::vector<std::string> command = {"generate", "--config", config, "--prompt",
                                      "def fibonacci(n):\n"};
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

/// Text that takes long enough to be interrupted.
std::vector<std::string> endless(const std::string& config) {
  return generate(config, {"--max-tokens", "1500", "--ignore-eos", "--n", "2000"});
}

struct TwoProcesses {
  Process first, second;

  explicit TwoProcesses(const std::vector<std::string>& command, int port = free_port())
      : first("/usr/bin/env", launched(0, port, command)),
        second("/usr/bin/env", launched(1, port, command)) {}

  static std::vector<std::string> launched(int rank, int port,
                                           const std::vector<std::string>& command) {
    std::vector<std::string> arguments = {
        "RANK=" + std::to_string(rank),        "WORLD_SIZE=2",
        "LOCAL_RANK=" + std::to_string(rank),  "MASTER_ADDR=127.0.0.1",
        "MASTER_PORT=" + std::to_string(port), TANDEM_BINARY};
    arguments.insert(arguments.end(), command.begin(), command.end());
    return arguments;
  }
};

}  // namespace

TEST_CASE("two processes of one GPU each write the text of one process with two, for each split") {
  if (!two_gpus()) return;
  const TemporaryFolder folder;
  for (const std::string split : {"tensor", "layer"}) {
    for (const std::string length : {"0", "4"}) {
      const std::vector<std::string> options = {"--json", "--max-tokens", "300",
                                                "--num-speculative-tokens", length};
      const ProcessResult expected =
          run_tandem(generate(config_file(folder, split, "cuda:0,cuda:1"), options));
      INFO("stderr of one process: " << expected.err);
      REQUIRE(expected.exit_code == 0);
      TwoProcesses both(generate(config_file(folder, split), options));
      const ProcessResult first = both.first.wait(), second = both.second.wait();
      INFO(split << ", " << length << " drafts; stderr of rank 0: " << first.err
                 << "\nstderr of rank 1: " << second.err);
      REQUIRE(first.exit_code == 0);
      CHECK(second.exit_code == 0);
      CHECK(json::parse(first.out)["token_ids"] == json::parse(expected.out)["token_ids"]);
    }
  }
}

TEST_CASE("the peer kernel is refused between processes of one GPU each") {
  if (!two_gpus()) return;
  const TemporaryFolder folder;
  const std::string config = config_file(folder, "tensor");
  json changed = json::parse(std::ifstream(config));
  changed["communication"]["all_reduce"] = "peer";
  std::ofstream(config) << changed;
  TwoProcesses both(generate(config, {}));
  CHECK_THAT(both.first.wait().err, ContainsText("GPUs of several processes"));
  CHECK(both.second.wait().exit_code != 0);
}

TEST_CASE("a process of one GPU that is killed or stopped ends the other within 15 s") {
  if (!two_gpus()) return;
  const TemporaryFolder folder;
  struct Blow {
    std::string split;
    int signal;
    bool hits_first;
  };
  for (const Blow& blow : {Blow{"tensor", SIGKILL, false}, Blow{"layer", SIGKILL, true},
                           Blow{"tensor", SIGSTOP, true}, Blow{"layer", SIGSTOP, false}}) {
    TwoProcesses both(endless(config_file(folder, blow.split)));
    REQUIRE_FALSE(both.first.read_some().empty());  // text: the middle of it
    const auto begin = std::chrono::steady_clock::now();
    (blow.hits_first ? both.first : both.second).signal(blow.signal);
    const ProcessResult left = (blow.hits_first ? both.second : both.first).wait();
    const auto took = std::chrono::steady_clock::now() - begin;
    const bool killed = blow.signal == SIGKILL;
    const std::string rank = blow.hits_first ? "0" : "1";
    INFO(blow.split << ", signal " << blow.signal << "; stderr: " << left.err);
    CHECK(left.exit_code == 1);
    CHECK_THAT(left.err, ContainsText("rank " + rank + " (cuda:" + rank + ") " +
                                      (killed ? "ended unexpectedly" : "has been silent for 6 s")));
    CHECK(took < 15s);
    std::cout << blow.split << " split, rank " << rank << (killed ? " killed: " : " stopped: ")
              << std::chrono::duration<double>(took).count() << " s; " << left.err;
  }
}
