#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/shard.h"
#include "tandem/plan.h"

namespace tandem {

/// Memory that no formula gives (context, communicator, graphs, workspaces), as measured on this
/// machine in earlier runs. Kept in a small JSON file; a plan takes the largest of the last few
/// measurements. One thread at a time.
///
/// Several processes may use one file: each `record` reads it again and replaces it whole by an
/// atomic rename. Of two that record in the same instant one may be lost, which costs nothing but a
/// measurement.
class OverheadHistory {
 public:
  /// What a measurement belongs to.
  struct Key {
    std::string
        hardware;  ///< a device's name and whatever changes its overheads: "NVIDIA H100 80GB HBM3"
    MemoryPurpose purpose = MemoryPurpose::kContext;
    int ranks = 1;               ///< devices that work together
    Split split = Split::kNone;  ///< and how
    bool operator==(const Key&) const = default;
  };

  /// A history without a file: empty, and kept in memory only.
  OverheadHistory() = default;
  /// Reads the file; a missing one is empty, one that is damaged or of another version is ignored
  /// with a warning.
  explicit OverheadHistory(std::filesystem::path file);

  /// $XDG_CACHE_HOME/tandem/overheads.json or ~/.cache/tandem/overheads.json; empty when neither
  /// variable is set. Reads the environment: call it at start-up.
  static std::filesystem::path default_file();

  /// The largest of the last `kKeptMeasurements`, or none.
  std::optional<uint64_t> find(const Key& key) const;
  /// What the file holds, or would hold.
  std::string to_json() const;
  /// A history without a file, from what `to_json` gave. @throws Error for anything else
  static OverheadHistory from_json(std::string_view text);
  /// Adds a measurement and writes the file; a file that cannot be written gives a warning.
  void record(const Key& key, uint64_t bytes);

  static constexpr int kVersion = 2;
  static constexpr size_t kKeptMeasurements = 8;  ///< per key
  static constexpr size_t kKeptKeys = 256;        ///< the longest unused are dropped

 private:
  struct Entry {
    Key key;
    std::vector<uint64_t> bytes;  ///< oldest first
  };
  static std::vector<Entry> parse(std::string_view text);
  static std::vector<Entry> read(const std::filesystem::path& file);
  void write() const;

  std::filesystem::path file_;
  std::vector<Entry> entries_;  ///< the last recorded is the last
};

/// The purpose with this name. @throws ConfigError for a name that is none
MemoryPurpose memory_purpose(std::string_view name);

}  // namespace tandem
