#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/sample.h"

namespace tandem::bench {

/// A sample and the number of the pair that it belongs to.
struct JournalEntry {
  size_t pair = 0;
  Sample sample;
};

/// The file DIR/journal.jsonl: what a run was asked for, then one line for each finished sample,
/// written as soon as there is one. A run that finds one goes on behind it.
class Journal {
 public:
  /// Makes the folder where it does not exist, and the file; or reads what an earlier run left. An
  /// unfinished last line, which a killed process may leave, is cut off.
  /// @param settings everything that decides what is measured
  /// @throws UsageError when the folder or file cannot be written, when the file is no journal, or
  /// was begun with other settings (names the first that differs)
  Journal(const std::filesystem::path& folder, const nlohmann::ordered_json& settings);

  /// What earlier runs finished.
  const std::vector<JournalEntry>& finished() const { return finished_; }
  /// @throws Error when it cannot be written
  void append(const JournalEntry& entry);

 private:
  void resume(const std::string& text, const nlohmann::ordered_json& settings);

  std::string name_;
  std::ofstream file_;
  std::vector<JournalEntry> finished_;
};

}  // namespace tandem::bench
