#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::cli {

/// `text` on one line: control characters become spaces.
std::string one_line(std::string_view text);

/// Prints `tandem: error: …` on stderr, on one line.
void print_error(std::string_view message);
/// Prints `tandem: warning: …` on stderr, on one line.
void print_warning(std::string_view message);

bool stdout_is_terminal();
bool stderr_is_terminal();

/// Everything that stdin holds.
std::string read_stdin();
/// A file whole, or stdin for "-". @throws UsageError when it cannot be read
std::string read_input(const std::filesystem::path& path);

/// Whether a file could be written; leaves it, and what it holds, as it is.
bool can_write(const std::filesystem::path& path);

/// Token ids in text: a JSON list, or integers separated by commas and white space.
/// @throws UsageError that names `what` and the place
std::vector<int32_t> parse_ids(std::string_view text, std::string_view what);

}  // namespace tandem::cli
