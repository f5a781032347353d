#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace tandem {

/// A read-only memory mapping of a whole file, shared with every other process that maps it.
/// Move-only.
class MappedFile {
 public:
  MappedFile() = default;
  /// @throws ModelError when the file is missing, unreadable, no regular file, or empty
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  const std::filesystem::path& path() const { return path_; }
  /// Tells the kernel that these bytes are not needed soon, so that a long load does not count them
  /// as resident.
  void discard(size_t offset, size_t bytes) const noexcept;

 private:
  std::filesystem::path path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

/// Reads a small text file whole. @throws ModelError naming the path, also when it exceeds
/// `limit_bytes`
std::string read_text_file(const std::filesystem::path& path, uint64_t limit_bytes = 256ull << 20);

}  // namespace tandem
