#include "backend/cpu/host_memory.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/size.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

/// What the files of one version of the memory controller are called.
struct ControllerFiles {
  const char* limit;
  const char* usage;
  std::array<std::string_view, 2> reclaimable;  ///< keys of memory.stat: cached file pages
};

constexpr ControllerFiles kFirstVersion{
    "memory.limit_in_bytes", "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}};
constexpr ControllerFiles kSecondVersion{
    "memory.max", "memory.current", {"inactive_file", "active_file"}};

/// A mounted hierarchy of groups with a memory controller.
struct Hierarchy {
  int version = 2;
  fs::path mounted_group;  ///< the group that the mount point shows
  fs::path mount_point;
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

bool contains(const std::vector<std::string>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// Undoes the octal escapes of /proc/self/mountinfo: "\040" is a space.
std::string unescaped(const std::string& text) {
  constexpr size_t kDigits = 3;
  constexpr int kOctal = 8;
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const std::string digits = text.substr(std::min(i + 1, text.size()), kDigits);
    if (text[i] == '\\' && digits.size() == kDigits &&
        digits.find_first_not_of("01234567") == std::string::npos) {
      plain += static_cast<char>(std::stoi(digits, nullptr, kOctal));
      i += kDigits;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

/// The lines of mountinfo (proc_pid_mountinfo(5)): id, parent, device, root, mount point, options,
/// optional fields, "-", type, source, options of the file system.
std::vector<Hierarchy> mounted_hierarchies(const fs::path& root) {
  constexpr size_t kRoot = 3, kMountPoint = 4, kOptional = 6;
  std::vector<Hierarchy> hierarchies;
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> fields = split(line, ' ');
    if (fields.size() <= kOptional) continue;
    const auto dash = std::find(fields.begin() + kOptional, fields.end(), "-");
    if (fields.end() - dash < 4) continue;
    const std::string &type = dash[1], options = dash[3];
    const bool first = type == "cgroup" && contains(split(options, ','), "memory");
    if (!first && type != "cgroup2") continue;
    hierarchies.push_back(
        {first ? 1 : 2, unescaped(fields[kRoot]), unescaped(fields[kMountPoint])});
  }
  return hierarchies;
}

/// The process's group in the hierarchy of a version, of lines "id:controllers:group".
std::optional<fs::path> own_group(const fs::path& root, int version) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool found =
        version == 1 ? contains(split(controllers, ','), "memory") : controllers.empty();
    if (found) return fs::path(line.substr(second + 1));
  }
  return std::nullopt;
}

/// Folders below the mount point that lead to the group. None where the mount does not show the
/// group: a container may see its own group at the mount point and name it as the host does.
fs::path folders_to(const fs::path& group, const fs::path& mounted_group) {
  const fs::path relative = group.lexically_relative(mounted_group);
  if (relative.empty() || relative == "." || *relative.begin() == "..") return {};
  return relative;
}

uint64_t read_number(const fs::path& path, uint64_t otherwise) {
  std::ifstream file(path);
  uint64_t bytes = 0;
  return file >> bytes ? bytes : otherwise;
}

uint64_t reclaimable_bytes(const fs::path& folder, const ControllerFiles& names) {
  uint64_t sum = 0;
  std::ifstream file(folder / "memory.stat");
  std::string key;
  for (uint64_t bytes = 0; file >> key >> bytes;) {
    if (std::find(names.reclaimable.begin(), names.reclaimable.end(), key) !=
        names.reclaimable.end()) {
      sum += bytes;
    }
  }
  return sum;
}

/// Lowers the figures to what one group leaves.
void apply_group(const fs::path& folder, const ControllerFiles& names, HostMemory& memory) {
  const uint64_t limit = read_number(folder / names.limit, kNoLimit);
  if (limit == kNoLimit) return;
  memory.capacity_bytes = std::min(memory.capacity_bytes, limit);
  const uint64_t usage = read_number(folder / names.usage, 0);
  const uint64_t held = usage - std::min(usage, reclaimable_bytes(folder, names));
  memory.available_bytes = std::min(memory.available_bytes, limit - std::min(limit, held));
}

/// MemTotal and MemAvailable of /proc/meminfo.
HostMemory machine_memory(const fs::path& root) {
  HostMemory memory;
  std::ifstream file(root / "proc/meminfo");
  std::string name, unit;
  for (uint64_t kib = 0; file >> name >> kib && std::getline(file, unit);) {
    if (name == "MemTotal:") memory.capacity_bytes = kib * kKiB;
    if (name == "MemAvailable:") memory.available_bytes = kib * kKiB;
  }
  if (memory.capacity_bytes == 0) {
    memory.capacity_bytes = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                            static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    memory.available_bytes = memory.capacity_bytes;
  }
  return memory;
}

}  // namespace

HostMemory read_host_memory(const fs::path& root) {
  HostMemory memory = machine_memory(root);
  for (const Hierarchy& hierarchy : mounted_hierarchies(root)) {
    const std::optional<fs::path> group = own_group(root, hierarchy.version);
    if (!group) continue;
    const ControllerFiles& names = hierarchy.version == 1 ? kFirstVersion : kSecondVersion;
    fs::path folder = root / hierarchy.mount_point.relative_path();
    apply_group(folder, names, memory);
    for (const fs::path& part : folders_to(*group, hierarchy.mounted_group)) {
      folder /= part;
      apply_group(folder, names, memory);
    }
  }
  memory.available_bytes = std::min(memory.available_bytes, memory.capacity_bytes);
  return memory;
}

}  // namespace tandem
