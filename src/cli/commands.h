#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace tandem::cli {

/// What a parsed command line asks for. Returns the process's exit code (`ExitCode`); throws what
/// fails.
using Command = std::function<int()>;

// Each adds its subcommand to `app`; when the command line names it, parsing stores what to run in
// `command`.
void add_generate(CLI::App& app, Command& command);
void add_tokenize(CLI::App& app, Command& command);
void add_logits(CLI::App& app, Command& command);
void add_devices(CLI::App& app, Command& command);
void add_plan(CLI::App& app, Command& command);
void add_bench(CLI::App& app, Command& command);

}  // namespace tandem::cli
