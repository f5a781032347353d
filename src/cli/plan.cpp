#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/pair_options.h"
#include "engine/pair_request.h"
#include "plan/plan_table.h"
#include "plan/planner.h"
#include "tandem/config.h"
#include "tandem/error.h"

namespace tandem::cli {
namespace {

struct PlanOptions {
  PairOptions pair;
  std::optional<std::string> devices;
  std::optional<std::string> split;
  bool json = false;
};

Config read_config(const PlanOptions& options) {
  Config config = options.pair.read();
  if (options.split) config.main.split = *options.split;
  config.validate();
  return config;
}

int plan(const PlanOptions& options) {
  if (options.devices && options.devices->empty()) {
    throw UsageError(
        "--devices names no device; give sizes of GPUs, \"24GiB,24GiB\", or leave it out");
  }
  const PairRequest request = pair_request(read_config(options), options.devices.value_or(""));
  const OverheadHistory history(OverheadHistory::default_file());
  const Plan plan = make_plan(request.plan, history);
  if (options.json) {
    std::cout << plan.memory.to_json() << "\n";
  } else {
    std::cout << plan_table(request.plan, plan, request.outlook);
  }
  std::cout.flush();
  const std::string warning = no_gain_warning(plan, request.outlook);
  if (!warning.empty()) print_warning(warning);
  if (plan.memory.shortfall) throw MemoryError(plan.memory.shortfall->message);
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Command& command) {
  const auto options = std::make_shared<PlanOptions>();
  CLI::App* const sub = app.add_subcommand(
      "plan",
      "Say what a pair would take of each device, the largest context and the speed-up to expect;\n"
      "loads nothing, needs no more than the models' config.json");
  options->pair.add_to(*sub, "Models");
  sub->add_option(
         "--devices", options->devices,
         "Plan for these devices instead of this machine's: sizes of GPUs, or simulated devices")
      ->type_name("SIZE,SIZE…");
  sub->add_option("--split", options->split, "auto, layer or tensor")->type_name("S");
  sub->add_flag("--json", options->json, "Print the plan as one object");
  sub->footer(
      "Examples:\n"
      "  tandem plan --config configs/demo.json\n"
      "  tandem plan --main llama-70b --draft llama-1b --devices 80GiB,80GiB\n"
      "  tandem plan --main llama-8b --quantization int4 --devices 8GiB\n"
      "  tandem plan --config configs/demo.json --devices cpu:0=64MiB,cpu:1=64MiB --json");
  sub->callback([options, &command] { command = [options] { return plan(*options); }; });
}

}  // namespace tandem::cli
