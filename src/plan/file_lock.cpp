#include "plan/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tandem/error.h"

namespace tandem {

FileLock::FileLock(std::filesystem::path path) : path_(std::move(path)) {
  constexpr int kOwnerOnly = 0600;
  // O_NOFOLLOW: the temporary directory is shared, a planted link must not make us write elsewhere.
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kOwnerOnly);
  if (descriptor_ < 0)
    throw Error(path_.string() + ": cannot open the lock file: " + std::strerror(errno));
}

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

FileLock::FileLock(FileLock&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  if (this != &other) {
    if (descriptor_ >= 0) ::close(descriptor_);
    path_ = std::move(other.path_);
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

bool FileLock::try_lock() {
  int result = 0;
  do {
    result = ::flock(descriptor_, LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    if (errno == EWOULDBLOCK) return false;
    throw Error(path_.string() + ": cannot lock: " + std::strerror(errno));
  }
  const std::string id = std::to_string(::getpid()) + "\n";
  // The id only serves messages: a full disk must not keep anybody from loading.
  if (::ftruncate(descriptor_, 0) == 0) {
    [[maybe_unused]] const ssize_t written = ::pwrite(descriptor_, id.data(), id.size(), 0);
  }
  return true;
}

std::string FileLock::holder() const {
  constexpr size_t kLongestId = 16;
  std::array<char, kLongestId> text{};
  const ssize_t count = ::pread(descriptor_, text.data(), text.size(), 0);
  std::string id;
  for (ssize_t i = 0;
       i < count && text[static_cast<size_t>(i)] >= '0' && text[static_cast<size_t>(i)] <= '9';
       ++i) {
    id.push_back(text[static_cast<size_t>(i)]);
  }
  return id;
}

}  // namespace tandem
