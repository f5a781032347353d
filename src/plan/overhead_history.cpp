#include "plan/overhead_history.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/log.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr uint64_t kLargestFileBytes = 1u << 20;
/// 1 TiB: no overhead of a device is near it.
constexpr uint64_t kLargestPlausibleBytes = 1ull << 40;

/// By Split.
constexpr std::array<std::string_view, 3> kSplitNames = {"none", "tensor", "layer"};

Split split_named(const std::string& name) {
  const auto known = std::find(kSplitNames.begin(), kSplitNames.end(), name);
  if (known == kSplitNames.end()) throw Error("'split' is \"" + name + "\"");
  return static_cast<Split>(known - kSplitNames.begin());
}

std::string read_whole(const std::filesystem::path& file) {
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(file, error);
  if (error) throw Error(error.message());
  if (size > kLargestFileBytes) throw Error("larger than a history can be");
  std::ifstream stream(file, std::ios::binary);
  std::string text(size, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(size));
  if (!stream) throw Error("cannot be read");
  return text;
}

void write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(descriptor, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error(std::strerror(errno));
    text.remove_prefix(static_cast<size_t>(count));
  }
}

/// Replaces the file whole: a reader sees the old or the new one, never half of it.
void replace_file(const std::filesystem::path& file, std::string_view text) {
  std::filesystem::create_directories(file.parent_path());
  std::string temporary = file.string() + ".XXXXXX";
  const int descriptor = ::mkstemp(temporary.data());
  if (descriptor < 0) throw Error(std::strerror(errno));
  try {
    write_all(descriptor, text);
    if (::fsync(descriptor) != 0) throw Error(std::strerror(errno));
    if (::rename(temporary.c_str(), file.c_str()) != 0) throw Error(std::strerror(errno));
  } catch (...) {
    ::close(descriptor);
    ::unlink(temporary.c_str());
    throw;
  }
  ::close(descriptor);
}

}  // namespace

OverheadHistory::OverheadHistory(std::filesystem::path file) : file_(std::move(file)) {
  if (!file_.empty()) entries_ = read(file_);
}

std::filesystem::path OverheadHistory::default_file() {
  const std::filesystem::path name = std::filesystem::path("tandem") / "overheads.json";
  // The XDG base directory specification has relative values ignored.
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/') {
    return std::filesystem::path(cache) / name;
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    return std::filesystem::path(home) / ".cache" / name;
  }
  return {};
}

std::vector<OverheadHistory::Entry> OverheadHistory::parse(std::string_view text) {
  const json document = json::parse(text);
  if (document.at("version").get<int>() != kVersion) {
    throw Error("version " + document.at("version").dump() + ", expected " +
                std::to_string(kVersion));
  }
  std::vector<Entry> entries;
  for (const json& item : document.at("overheads")) {
    Entry entry;
    entry.key.hardware = item.at("hardware").get<std::string>();
    entry.key.purpose = memory_purpose(item.at("purpose").get<std::string>());
    entry.key.ranks = item.at("ranks").get<int>();
    entry.key.split = split_named(item.at("split").get<std::string>());
    for (const json& bytes : item.at("bytes")) {
      if (!bytes.is_number_unsigned() || bytes.get<uint64_t>() > kLargestPlausibleBytes)
        throw Error("'bytes' holds " + bytes.dump());
      entry.bytes.push_back(bytes.get<uint64_t>());
    }
    if (entry.bytes.empty() || entry.bytes.size() > kKeptMeasurements)
      throw Error("'bytes' has a wrong length");
    entries.push_back(std::move(entry));
  }
  return entries;
}

OverheadHistory OverheadHistory::from_json(std::string_view text) {
  OverheadHistory history;
  try {
    history.entries_ = parse(text);
  } catch (const json::exception& problem) {
    throw Error(std::string("no history of overheads: ") + problem.what());
  }
  return history;
}

std::string OverheadHistory::to_json() const {
  json overheads = json::array();
  for (const Entry& entry : entries_) {
    overheads.push_back({{"hardware", entry.key.hardware},
                         {"purpose", name_of(entry.key.purpose)},
                         {"ranks", entry.key.ranks},
                         {"split", kSplitNames[static_cast<size_t>(entry.key.split)]},
                         {"bytes", entry.bytes}});
  }
  return json{{"version", kVersion}, {"overheads", std::move(overheads)}}.dump(1) + "\n";
}

std::vector<OverheadHistory::Entry> OverheadHistory::read(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return {};
  try {
    return parse(read_whole(file));
  } catch (const std::exception& problem) {
    log().warn("{}: damaged history of measured overheads, ignored: {}", file.string(),
               problem.what());
    return {};
  }
}

std::optional<uint64_t> OverheadHistory::find(const Key& key) const {
  const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& other) { return other.key == key; });
  if (entry == entries_.end()) return std::nullopt;
  return *std::max_element(entry->bytes.begin(), entry->bytes.end());
}

void OverheadHistory::record(const Key& key, uint64_t bytes) {
  if (!file_.empty()) entries_ = read(file_);  // others may have recorded since
  Entry entry{key, {}};
  const auto known = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& other) { return other.key == key; });
  if (known != entries_.end()) {
    entry = std::move(*known);
    entries_.erase(known);
  }
  entry.bytes.push_back(bytes);
  if (entry.bytes.size() > kKeptMeasurements) entry.bytes.erase(entry.bytes.begin());
  entries_.push_back(std::move(entry));
  if (entries_.size() > kKeptKeys) entries_.erase(entries_.begin());
  write();
}

void OverheadHistory::write() const {
  if (file_.empty()) return;
  try {
    replace_file(file_, to_json());
  } catch (const std::exception& problem) {
    log().warn("{}: cannot keep the measured overheads: {}", file_.string(), problem.what());
  }
}

}  // namespace tandem
