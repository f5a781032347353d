#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace tandem {

/// An exclusive advisory lock on a file (flock), held until destruction or the end of the process.
/// Move-only. Keeps apart processes and threads alike: each lock opens the file anew.
class FileLock {
 public:
  /// Creates the file (owner only) if it is missing. @throws Error when it cannot be opened:
  /// message says why
  explicit FileLock(std::filesystem::path path);
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;

  /// Takes the lock if nobody holds it, and writes this process's id into the file. Never blocks.
  bool try_lock();
  /// The process id that the file names, for messages; empty when there is none.
  std::string holder() const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace tandem
