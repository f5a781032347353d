#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/console.h"
#include "core/text.h"
#include "tandem/error.h"

namespace tandem::cli {
namespace {

int code(ExitCode exit_code) { return static_cast<int>(exit_code); }

/// What was wrong with the command line, and where help is.
std::string explain(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const auto chosen = app.get_subcommands();
  if (!chosen.empty()) {
    return std::string(error.what()) + "; see 'tandem " + chosen.front()->get_name() + " --help'";
  }
  if (argc < 2 || argv[1][0] == '-') return std::string(error.what()) + "; see 'tandem --help'";
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands({})) names.push_back(sub->get_name());
  const std::string unknown = "unknown command '" + std::string(argv[1]) + "'; ";
  const std::string meant = nearest(argv[1], names);
  if (resembles(argv[1], meant)) {
    return unknown + "the nearest known one is '" + meant + "', see 'tandem --help'";
  }
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  return unknown + "the known ones are " + known + ", see 'tandem --help'";
}

/// Runs a command and turns what it throws into one line and an exit code.
int run(const Command& command) {
  try {
    const int result = command();
    std::cout.flush();
    if (!std::cout) throw Error("standard output cannot be written to");
    return result;
  } catch (const Error& error) {
    print_error(error.what());
    return code(error.exit_code());
  } catch (const std::bad_alloc&) {
    print_error(
        "out of memory on the host; use a smaller context (\"main.max_model_len\") or model");
    return code(ExitCode::kMemory);
  } catch (const std::exception& error) {
    print_error(error.what());
    return code(ExitCode::kRuntime);
  }
}

int main(int argc, char** argv) {
  CLI::App app(
      "tandem: a large language model answers faster, and exactly as it would have answered "
      "alone.\n"
      "A small draft model proposes a few tokens, the large main model checks them in one pass.",
      "tandem");
  app.set_version_flag("--version", std::string("tandem ") + TANDEM_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Examples:\n"
      "  tandem generate --config configs/demo.json --prompt 'def add(a, b):' --baseline\n"
      "  tandem generate --main DIR --draft DIR --prompt 'Once upon a time' --temperature 0.8\n"
      "  tandem plan --config configs/demo.json\n"
      "  tandem bench --config configs/demo.json --out report\n"
      "  tandem devices\n"
      "Exit codes: 0 done, 1 failed at run time (or interrupted), 2 bad usage, configuration or "
      "model,\n"
      "3 does not fit in memory.");
  Command command;
  add_generate(app, command);
  add_tokenize(app, command);
  add_logits(app, command);
  add_plan(app, command);
  add_bench(app, command);
  add_devices(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    print_error(explain(app, error, argc, argv));
    return code(ExitCode::kUsage);
  }
  return run(command);
}

}  // namespace
}  // namespace tandem::cli

int main(int argc, char** argv) { return tandem::cli::main(argc, argv); }
