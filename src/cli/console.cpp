#include "cli/console.h"

#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "tandem/error.h"

namespace tandem::cli {
namespace {

std::string read_all(std::istream& stream) {
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

bool is_separator(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == ','; }

}  // namespace

std::string one_line(std::string_view text) {
  std::string line(text);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return line;
}

void print_error(std::string_view message) {
  std::cerr << "tandem: error: " << one_line(message) << std::endl;
}

void print_warning(std::string_view message) {
  std::cerr << "tandem: warning: " << one_line(message) << std::endl;
}

bool stdout_is_terminal() { return isatty(STDOUT_FILENO) != 0; }
bool stderr_is_terminal() { return isatty(STDERR_FILENO) != 0; }

std::string read_stdin() { return read_all(std::cin); }

std::string read_input(const std::filesystem::path& path) {
  if (path == "-") return read_stdin();
  std::error_code ignored;
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path, ignored)) {
    throw UsageError(path.string() +
                     ": cannot be read; give a text file, or '-' for standard input");
  }
  return read_all(file);
}

bool can_write(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(path, ignored);
  const bool existed = std::filesystem::exists(status);
  if (existed && !std::filesystem::is_regular_file(status)) {
    // Opening a pipe would wait for its reader, and closing it would be the end of the text.
    return !std::filesystem::is_directory(status) && ::access(path.c_str(), W_OK) == 0;
  }
  if (!std::ofstream(path, std::ios::binary | std::ios::app)) return false;
  if (!existed) std::filesystem::remove(path, ignored);
  return true;
}

std::vector<int32_t> parse_ids(std::string_view text, std::string_view what) {
  const auto trim = [&text](auto&& unwanted) {
    while (!text.empty() && unwanted(text.front())) text.remove_prefix(1);
    while (!text.empty() && unwanted(text.back())) text.remove_suffix(1);
  };
  trim(is_separator);
  if (text.starts_with('[') && text.ends_with(']')) {
    text = text.substr(1, text.size() - 2);
  }
  std::vector<int32_t> ids;
  while (true) {
    trim(is_separator);
    if (text.empty()) return ids;
    int32_t id = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), id);
    const auto length = static_cast<size_t>(parsed.ptr - text.data());
    if (parsed.ec != std::errc() || (length < text.size() && !is_separator(text[length]))) {
      size_t end = 0;
      while (end < text.size() && !is_separator(text[end])) ++end;
      throw UsageError(std::string(what) + ": '" + std::string(text.substr(0, end)) +
                       "' is no token id; give integers, separated by commas or white space");
    }
    ids.push_back(id);
    text.remove_prefix(length);
  }
}

}  // namespace tandem::cli
