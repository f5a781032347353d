#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace tandem::testing {

/// A line, or a whole file (line 0), that breaks a rule of the project's structure.
struct Violation {
  std::string file;  ///< relative to the checked tree
  int line = 0;
  std::string rule;  ///< what is wrong, for people
};

/// "file:line: rule", one a line.
std::string describe(const std::vector<Violation>& violations);

/// Reads the include lines (and, in the public headers, the identifiers) of a source tree laid out
/// as tandem's:
///   - layers: cli → engine → spec, plan → model, tokenizer → backend, comm → core; a file of src/
///   includes its own
///     folder, lower layers and include/tandem alone
///   - CUDA headers only in kernels/ and src/backend/cuda/; NCCL's in a single file of src/comm/
///   - src/ outside src/backend/cuda/ does not ask the preprocessor whether CUDA or NCCL is there
///   - include/tandem includes itself and the standard library, and names no CUDA, NCCL, JSON or
///   logging type
///   - kernels/ includes nothing of src/ or include/; examples/ include nothing of src/
///   - no file is longer than kMaxLines
/// @throws std::runtime_error when the tree has no src/ folder
std::vector<Violation> check_architecture(const std::filesystem::path& tree);

inline constexpr int kMaxLines = 600;

}  // namespace tandem::testing
