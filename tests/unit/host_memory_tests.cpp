#include "backend/cpu/host_memory.h"

#include <fstream>
#include <string>

#include "backend/backend.h"
#include "core/size.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

using namespace tandem;

namespace {

/// A root folder with what /proc and the control groups would say: a machine of 64 GiB, 48 of them
/// available.
class Root {
 public:
  Root() {
    write("proc/meminfo",
          "MemTotal:       67108864 kB\nMemFree:        1000 kB\nMemAvailable:   50331648 kB\n"
          "Active(anon):   77 kB\nHugePages_Total:       0\n");
  }
  void write(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = folder_.path() / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void groups(const std::string& text) const { write("proc/self/cgroup", text); }
  void mounts(const std::string& text) const {
    write("proc/self/mountinfo",
          "22 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw\nno mount at all\n" + text);
  }
  /// A group of version 2. A limit of "max" is none.
  void second(const std::string& group, const std::string& limit, uint64_t usage = 0,
              uint64_t cached = 0) const {
    write(group + "/memory.max", limit + "\n");
    write(group + "/memory.current", std::to_string(usage) + "\n");
    write(group + "/memory.stat", "anon 5\ninactive_file " + std::to_string(cached / 2) +
                                      "\nactive_file " + std::to_string(cached - cached / 2) +
                                      "\nslab 7\n");
  }
  void first(const std::string& group, uint64_t limit, uint64_t usage = 0,
             uint64_t cached = 0) const {
    write(group + "/memory.limit_in_bytes", std::to_string(limit) + "\n");
    write(group + "/memory.usage_in_bytes", std::to_string(usage) + "\n");
    write(group + "/memory.stat", "cache 1\ntotal_inactive_file " + std::to_string(cached) + "\n");
  }
  HostMemory read() const { return read_host_memory(folder_.path()); }

 private:
  tandem::testing::TemporaryFolder folder_;
};

constexpr uint64_t kMachine = 64 * kGiB, kAvailable = 48 * kGiB;
/// What a group of version 1 without a limit says.
constexpr uint64_t kFirstUnlimited = 9223372036854771712u;

const std::string kSecondMount =
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

std::string size(uint64_t bytes) { return std::to_string(bytes); }

}  // namespace

TEST_CASE("without control groups the machine's memory counts") {
  const Root root;
  CHECK(root.read().capacity_bytes == kMachine);
  CHECK(root.read().available_bytes == kAvailable);
  root.groups("nonsense\n");
  root.mounts("30 23 0:26 / /sys/fs/cgroup rw -\n");
  CHECK(root.read().capacity_bytes == kMachine);
}

TEST_CASE("a container that sees its group as the root of version 2") {
  const Root root;
  root.groups("0::/\n");
  root.mounts(kSecondMount);
  root.second("sys/fs/cgroup", "max");
  CHECK(root.read().capacity_bytes == kMachine);
  CHECK(root.read().available_bytes == kAvailable);
  root.second("sys/fs/cgroup", size(8 * kGiB), 6 * kGiB, 2 * kGiB);
  CHECK(root.read().capacity_bytes == 8 * kGiB);
  CHECK(root.read().available_bytes == 4 * kGiB);
}

TEST_CASE("every group above the process's own sets a limit, in version 2") {
  const Root root;
  root.groups("0::/user.slice/user-1000.slice/app.scope\n");
  root.mounts(kSecondMount);
  root.second("sys/fs/cgroup/user.slice", size(16 * kGiB), 15 * kGiB);
  root.second("sys/fs/cgroup/user.slice/user-1000.slice", "max", 14 * kGiB);
  root.second("sys/fs/cgroup/user.slice/user-1000.slice/app.scope", size(4 * kGiB), 2 * kGiB);
  root.second("sys/fs/cgroup/other.slice", size(kGiB), kGiB);  // not this process's
  CHECK(root.read().capacity_bytes == 4 * kGiB);
  CHECK(root.read().available_bytes ==
        kGiB);  // what the slice has left, less than the own group's 2
  root.second("sys/fs/cgroup/user.slice", size(3 * kGiB), 5 * kGiB);
  CHECK(root.read().capacity_bytes == 3 * kGiB);
  CHECK(root.read().available_bytes == 0);
}

TEST_CASE("a container of version 1 is named as the host names it") {
  const Root root;
  root.groups("12:cpu,cpuacct:/docker/abc\n9:memory:/docker/abc\n1:name=systemd:/docker/abc\n");
  root.mounts(
      "40 30 0:35 /docker/abc /sys/fs/cgroup/memory ro master:16 - cgroup cgroup rw,memory\n"
      "41 30 0:36 /docker/abc /sys/fs/cgroup/cpu ro master:17 - cgroup cgroup rw,cpu,cpuacct\n");
  root.first("sys/fs/cgroup/cpu", kGiB);  // no memory controller
  root.first("sys/fs/cgroup/memory", 2 * kGiB, kGiB + kGiB / 2, kGiB);
  CHECK(root.read().capacity_bytes == 2 * kGiB);
  CHECK(root.read().available_bytes == 2 * kGiB - kGiB / 2);
}

TEST_CASE("nested groups of version 1, with version 2 mounted beside them") {
  const Root root;
  root.groups("4:memory:/batch/job 7\n0::/batch/job 7\n");
  root.mounts(
      "40 30 0:35 / /sys/fs/cgroup/memory\\040v1 rw shared:9 - cgroup cgroup rw,memory\n"
      "42 30 0:37 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n");
  root.first("sys/fs/cgroup/memory v1", kFirstUnlimited, 40 * kGiB);
  root.first("sys/fs/cgroup/memory v1/batch", 6 * kGiB, kGiB);
  root.first("sys/fs/cgroup/memory v1/batch/job 7", kFirstUnlimited, kGiB);
  CHECK(root.read().capacity_bytes == 6 * kGiB);
  CHECK(root.read().available_bytes == 5 * kGiB);
}

TEST_CASE("a group outside of what is mounted falls back to the mount point") {
  const Root root;
  root.mounts("30 23 0:26 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  root.second("sys/fs/cgroup", size(5 * kGiB), kGiB);
  root.second("sys/fs/cgroup/x", size(kGiB));
  for (const char* group : {"0::/../sibling\n", "0::/elsewhere/x\n", "0::/\n", "0::/pod\n"}) {
    CAPTURE(group);
    root.groups(group);
    CHECK(root.read().capacity_bytes == 5 * kGiB);
    CHECK(root.read().available_bytes == 4 * kGiB);
  }
  root.groups("0::/pod/x\n");
  CHECK(root.read().capacity_bytes == kGiB);
}

TEST_CASE("the host's CPU device has what this process may have") {
  const HostMemory memory = read_host_memory();
  CHECK(memory.capacity_bytes > 0);
  CHECK(memory.available_bytes > 0);
  CHECK(memory.available_bytes <= memory.capacity_bytes);
  const DeviceInfo host = list_devices().back();
  CHECK(host.id.kind == DeviceKind::kCpu);
  CHECK(host.capacity_bytes == memory.capacity_bytes);
}
