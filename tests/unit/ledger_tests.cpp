#include "tandem/ledger.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "plan/file_lock.h"
#include "support/catch.h"
#include "support/temporary_folder.h"
#include "tandem/error.h"

using namespace tandem;
using tandem::testing::TemporaryFolder;

namespace {

constexpr uint64_t kCapacity = 1000;

MemoryLedger::Measure one_device(uint64_t free_bytes = kCapacity) {
  return [free_bytes] { return std::vector<DeviceMemory>{{"cpu:0", kCapacity, free_bytes}}; };
}

MemoryLedger::Decide take(uint64_t bytes) {
  return [bytes](const std::vector<DeviceMemory>&) {
    return std::vector<DeviceBytes>{{"cpu:0", bytes}};
  };
}

uint64_t left(MemoryLedger& ledger, uint64_t free_bytes = kCapacity) {
  uint64_t seen = 0;
  ledger.reserve(one_device(free_bytes), [&](const std::vector<DeviceMemory>& available) {
    seen = available.at(0).free_bytes;
    return std::vector<DeviceBytes>{};
  });
  return seen;
}

}  // namespace

TEST_CASE("a reservation counts until it is destroyed") {
  const auto ledger = MemoryLedger::create();
  {
    MemoryReservation first = ledger->reserve(one_device(), take(600));
    CHECK(ledger->reserved_bytes("cpu:0") == 600);
    CHECK(left(*ledger) == 400);
    CHECK_THROWS_AS(ledger->reserve(one_device(), take(401)), MemoryError);
    CHECK(ledger->reserved_bytes("cpu:0") == 600);
    MemoryReservation second = ledger->reserve(one_device(), take(400));
    CHECK(left(*ledger) == 0);
    MemoryReservation moved = std::move(first);
    CHECK(first.empty());
    CHECK(ledger->reserved_bytes("cpu:0") == 1000);
    moved.release();
    moved.release();
    CHECK(ledger->reserved_bytes("cpu:0") == 400);
  }
  CHECK(ledger->reserved_bytes("cpu:0") == 0);
}

TEST_CASE("a reservation may outlive the last other owner of its ledger") {
  auto ledger = MemoryLedger::create();
  MemoryReservation reservation = ledger->reserve(one_device(), take(1));
  ledger.reset();
  reservation.mark_allocated();
  CHECK_FALSE(reservation.empty());
}

TEST_CASE("allocated bytes are not subtracted from the device's own figure a second time") {
  const auto ledger = MemoryLedger::create();
  MemoryReservation reservation = ledger->reserve(one_device(900), take(500));
  CHECK(left(*ledger, 900) == 400);  // promised, still in the device's figure
  reservation.mark_allocated();
  CHECK(left(*ledger, 400) == 400);   // the device shows it
  CHECK(left(*ledger, 1000) == 500);  // a simulated device never shows it: the capacity bounds
}

TEST_CASE("a device that takes several amounts is held to their sum, and strangers to nothing") {
  const auto ledger = MemoryLedger::create();
  const auto twice = [](const std::vector<DeviceMemory>&) {
    return std::vector<DeviceBytes>{{"cpu:0", 600}, {"cpu:0", 600}};
  };
  CHECK_THROWS_AS(ledger->reserve(one_device(), twice), MemoryError);
  const auto stranger = [](const std::vector<DeviceMemory>&) {
    return std::vector<DeviceBytes>{{"cpu:7", 1}};
  };
  CHECK_THROWS_AS(ledger->reserve(one_device(), stranger), MemoryError);
  CHECK(left(*ledger) == kCapacity);
}

TEST_CASE("devices of one pool share it, whatever names two loads give them") {
  const auto ledger = MemoryLedger::create();
  const auto whole = [] {
    return std::vector<DeviceMemory>{{"cpu:0", kCapacity, kCapacity, "host"}};
  };
  const auto halves = [] {
    return std::vector<DeviceMemory>{{"cpu:1", kCapacity / 2, kCapacity / 2, "host"},
                                     {"cpu:2", kCapacity / 2, kCapacity / 2, "host"},
                                     {"cpu:3", kCapacity, kCapacity}};
  };
  std::vector<uint64_t> seen;
  const auto take_halves = [&](const std::vector<DeviceMemory>& available) {
    seen.clear();
    for (const DeviceMemory& device : available) seen.push_back(device.free_bytes);
    return std::vector<DeviceBytes>{{"cpu:1", 150}, {"cpu:2", 100}};
  };
  MemoryReservation first = ledger->reserve(whole, take(601));
  MemoryReservation second = ledger->reserve(halves, take_halves);
  CHECK(seen == std::vector<uint64_t>{199, 199, kCapacity});
  CHECK(ledger->reserved_bytes("cpu:1") == 150);
  CHECK_THROWS_AS(ledger->reserve(whole, take(150)), MemoryError);
  first.mark_allocated();
  second.release();
  CHECK_NOTHROW(ledger->reserve(whole, take(399)));
}

TEST_CASE("what the callbacks throw leaves nothing reserved") {
  const TemporaryFolder folder;
  const auto ledger = MemoryLedger::create(folder.path() / "lock");
  const auto fails = [](const std::vector<DeviceMemory>&) -> std::vector<DeviceBytes> {
    throw ConfigError("no");
  };
  CHECK_THROWS_AS(ledger->reserve(one_device(), fails), ConfigError);
  CHECK(ledger->reserved_bytes("cpu:0") == 0);
  FileLock lock(folder.path() / "lock");
  CHECK(lock.try_lock());
}

TEST_CASE("of threads that reserve at once, as many succeed as there is room for") {
  const auto ledger = MemoryLedger::create();
  constexpr int kThreads = 8;
  constexpr int kRounds = 200;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<MemoryReservation> held(kThreads);
    std::atomic<int> succeeded{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        while (!go.load()) std::this_thread::yield();
        try {
          held[static_cast<size_t>(i)] = ledger->reserve(one_device(), take(400));
          ++succeeded;
        } catch (const MemoryError&) {
        }
      });
    }
    go = true;
    for (std::thread& thread : threads) thread.join();
    REQUIRE(succeeded == 2);
    REQUIRE(ledger->reserved_bytes("cpu:0") == 800);
  }
}

TEST_CASE("ledgers with one lock file load one after the other") {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "lock";
  constexpr std::chrono::milliseconds kShort{60};
  const auto first = MemoryLedger::create(file);
  const auto second = MemoryLedger::create(file, kShort);

  MemoryReservation loading = first->reserve(one_device(), take(1));
  CHECK_THROWS_AS(second->reserve(one_device(), take(1)), MemoryError);
  bool asked = false;
  CHECK_THROWS_AS(
      MemoryLedger::create(file)->reserve(one_device(), take(1), [&] { return asked = true; }),
      CancelledError);
  CHECK(asked);

  SECTION("another load of the same ledger does not wait, and the lock lasts for both") {
    MemoryReservation beside = first->reserve(one_device(), take(1));
    loading.mark_allocated();
    CHECK_THROWS_AS(second->reserve(one_device(), take(1)), MemoryError);
    beside.release();
    CHECK_NOTHROW(second->reserve(one_device(), take(1)));
  }
  SECTION("allocated: the next may load") {
    loading.mark_allocated();
    CHECK_NOTHROW(second->reserve(one_device(), take(1)));
  }
  SECTION("failed: the next may load") {
    loading.release();
    CHECK_NOTHROW(second->reserve(one_device(), take(1)));
  }
  SECTION("a load that waits goes on as soon as the other is done") {
    const auto patient = MemoryLedger::create(file);
    std::thread other([&] { patient->reserve(one_device(), take(1)); });
    std::this_thread::sleep_for(kShort);
    loading.mark_allocated();
    other.join();
    SUCCEED();
  }
}

TEST_CASE("a lock goes with the process that held it") {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "lock";
  const pid_t child = ::fork();
  if (child == 0) {
    FileLock lock(file);
    ::_exit(lock.try_lock() ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  FileLock lock(file);
  CHECK(lock.holder() == std::to_string(child));
  CHECK(lock.try_lock());
  CHECK(lock.holder() == std::to_string(::getpid()));
}

TEST_CASE("a lock file that cannot be opened does not keep anybody from loading") {
  const TemporaryFolder folder;
  const auto ledger = MemoryLedger::create(folder.path() / "missing" / "lock");
  CHECK_NOTHROW(ledger->reserve(one_device(), take(1)));
  std::filesystem::create_symlink(folder.path() / "target", folder.path() / "link");
  CHECK_NOTHROW(MemoryLedger::create(folder.path() / "link")->reserve(one_device(), take(1)));
  CHECK_FALSE(std::filesystem::exists(folder.path() / "target"));
}
