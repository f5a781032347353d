#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "tandem/processes.h"

namespace tandem::cli {

/// The options of a command that several processes may run together.
struct ProcessOptions {
  ProcessPlaceOptions given;
  std::optional<double> patience_seconds;

  void add_to(CLI::App& sub);
  /// Meets the other processes, if the options or a launcher's variables say that there are some.
  /// @throws as find_process_place and join_processes
  std::shared_ptr<ProcessGroup> join() const;
};

/// For commands that one process runs. @throws UsageError when a launcher started several
void require_one_process(const char* command);

}  // namespace tandem::cli
