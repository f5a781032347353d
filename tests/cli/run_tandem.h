#pragma once

#include <string>
#include <vector>

#include "support/model_folder.h"
#include "support/process.h"

namespace tandem::testing {

/// Runs the command that this build made.
inline ProcessResult run_tandem(const std::vector<std::string>& arguments,
                                const std::string& input = {}) {
  return run_process(TANDEM_BINARY, arguments, input);
}

/// `tandem generate` on the demonstration pair, with fixed costs: measured ones would choose other
/// draft lengths in every run.
inline std::vector<std::string> generate_demo(std::vector<std::string> options) {
  std::vector<std::string> arguments = {"generate",
                                        "--main",
                                        demo_main().string(),
                                        "--draft",
                                        demo_draft().string(),
                                        "--cost-table",
                                        demo_cost_table().string()};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return arguments;
}

}  // namespace tandem::testing
