#include "bench/journal.h"

#include <cinttypes>
#include <cstdio>
#include <iterator>

#include "bench/stats_json.h"
#include "tandem/error.h"

namespace tandem::bench {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr const char* kFile = "journal.jsonl";
constexpr const char* kVersionKey = "tandem_bench_journal";
constexpr int kVersion = 1;
constexpr size_t kShownValue = 60;

std::string brief(const json& value) {
  const std::string text = value.is_null() ? "none" : value.dump();
  return text.size() <= kShownValue ? text : text.substr(0, kShownValue) + "…";
}

ordered_json entry_json(const JournalEntry& entry) {
  char hash[17];
  std::snprintf(hash, sizeof hash, "%016" PRIx64, entry.sample.hash);
  return {{"pair", entry.pair},
          {"prompt", entry.sample.prompt},
          {"repeat", entry.sample.repeat},
          {"setting", entry.sample.setting},
          {"turns", entry.sample.turns},
          {"tokens_hash", hash},
          {"stats", stats_to_json(entry.sample.stats)}};
}

JournalEntry entry_from(const json& line) {
  JournalEntry entry;
  entry.pair = line.at("pair").get<size_t>();
  entry.sample.prompt = line.at("prompt").get<size_t>();
  entry.sample.repeat = line.at("repeat").get<int>();
  entry.sample.setting = line.at("setting").get<size_t>();
  entry.sample.turns = line.at("turns").get<int>();
  entry.sample.hash = std::stoull(line.at("tokens_hash").get<std::string>(), nullptr, 16);
  entry.sample.stats = stats_from_json(line.at("stats"));
  return entry;
}

}  // namespace

Journal::Journal(const fs::path& folder, const ordered_json& settings)
    : name_((folder / kFile).string()) {
  std::error_code error;
  fs::create_directories(folder, error);
  const auto unwritable = [&](const std::string& why) {
    return UsageError(folder.string() + ": cannot be written to" +
                      (why.empty() ? "" : " (" + why + ")") +
                      "; give --out a folder that you may write to");
  };
  if (error) throw unwritable(error.message());
  std::string text;
  {
    std::ifstream before(name_, std::ios::binary);
    if (before) text.assign(std::istreambuf_iterator<char>(before), {});
  }
  const size_t whole = text.rfind('\n') + 1;  // 0 where there is no line end
  const bool begun = whole > 0;
  if (begun) {
    resume(text.substr(0, whole), settings);
    if (whole < text.size()) fs::resize_file(name_, whole, error);
    if (error) throw unwritable(error.message());
  }
  file_.open(name_, std::ios::binary | (begun ? std::ios::app : std::ios::trunc));
  if (!begun) {
    file_ << ordered_json{{kVersionKey, kVersion}, {"settings", settings}}.dump() << '\n'
          << std::flush;
  }
  if (!file_) throw unwritable("");
}

void Journal::resume(const std::string& text, const ordered_json& settings) {
  const auto broken = [&](int line) {
    return UsageError(name_ + ":" + std::to_string(line) +
                      ": no line of a benchmark's journal; remove the file, or give another --out");
  };
  int number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    const json line = json::parse(text.substr(begin, end - begin), nullptr, false);
    begin = end + 1;
    ++number;
    if (number > 1) {
      try {
        finished_.push_back(entry_from(line));
      } catch (const std::exception&) {
        throw broken(number);
      }
      continue;
    }
    if (!line.is_object() || line.value(kVersionKey, 0) != kVersion || !line.contains("settings") ||
        !line["settings"].is_object()) {
      throw broken(number);
    }
    const json& earlier = line["settings"];
    const json now = settings;
    for (const auto& [key, value] : now.items()) {
      const json before = earlier.contains(key) ? earlier[key] : json();
      if (before == value) continue;
      throw UsageError(name_ + ": was begun with " + key + " " + brief(before) + ", this run has " +
                       brief(value) + "; repeat the earlier settings, or give another --out");
    }
  }
}

void Journal::append(const JournalEntry& entry) {
  file_ << entry_json(entry).dump() << '\n' << std::flush;
  if (!file_) throw Error(name_ + ": writing failed");
}

}  // namespace tandem::bench
