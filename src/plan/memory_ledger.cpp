#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "core/log.h"
#include "core/size.h"
#include "plan/file_lock.h"
#include "tandem/error.h"
#include "tandem/ledger.h"

namespace tandem {
namespace {

constexpr std::chrono::milliseconds kLockPollInterval{20};
/// A load that waits longer than this for another process says so.
constexpr std::chrono::seconds kSilentWait{1};

/// Bytes on one device, and the pool they are from.
struct PoolBytes {
  DeviceBytes taken;
  std::string pool;
};

const std::string& pool_of(const DeviceMemory& device) {
  return device.pool.empty() ? device.name : device.pool;
}

uint64_t minus(uint64_t value, uint64_t taken) { return value > taken ? value - taken : 0; }

}  // namespace

struct MemoryLedger::State {
  struct Record {
    std::vector<PoolBytes> bytes;
    bool allocated = false;
    bool holds_lock = false;
  };

  std::filesystem::path lock_file;
  std::chrono::milliseconds patience{};

  mutable std::mutex mutex;
  std::map<uint64_t, Record> records;
  uint64_t next_id = 1;
  std::optional<FileLock> lock;  // held while lock_users > 0
  int lock_users = 0;
  bool lock_unusable = false;

  // All of these expect the mutex to be held.
  uint64_t reserved_of_pool(const std::string& pool, bool pending_only) const {
    uint64_t sum = 0;
    for (const auto& [id, record] : records) {
      if (pending_only && record.allocated) continue;
      for (const PoolBytes& entry : record.bytes) {
        if (entry.pool == pool) sum += entry.taken.bytes;
      }
    }
    return sum;
  }

  /// Takes from each device's free bytes what live reservations hold, in whichever name they hold
  /// it; devices of one pool bear it in equal parts.
  void subtract_reserved(std::vector<DeviceMemory>& devices) const {
    std::map<std::string, uint64_t> sharing;
    for (const DeviceMemory& device : devices) ++sharing[pool_of(device)];
    for (DeviceMemory& device : devices) {
      const std::string& pool = pool_of(device);
      const uint64_t parts = sharing[pool];
      const auto share = [parts](uint64_t bytes) { return (bytes + parts - 1) / parts; };
      // Memory that is promised but not allocated is missing from the device's own figure. Of
      // simulated devices every engine sees the whole, so promises that were kept count against the
      // capacity as well.
      const uint64_t by_device =
          minus(device.free_bytes, share(reserved_of_pool(pool, /*pending_only=*/true)));
      const uint64_t by_ledger =
          minus(device.capacity_bytes, share(reserved_of_pool(pool, /*pending_only=*/false)));
      device.free_bytes = std::min(by_device, by_ledger);
    }
  }

  void drop_lock() noexcept {
    if (--lock_users == 0) lock.reset();
  }

  /// Joins the lock that another load of this ledger holds, or tries to take it. False: another
  /// ledger holds it.
  bool try_join_lock(std::string& holder) {
    if (lock_users > 0) {
      ++lock_users;
      return true;
    }
    FileLock attempt(lock_file);
    if (!attempt.try_lock()) {
      holder = attempt.holder();
      return false;
    }
    lock.emplace(std::move(attempt));
    lock_users = 1;
    return true;
  }
};

MemoryReservation::MemoryReservation(std::shared_ptr<MemoryLedger> ledger, uint64_t id)
    : ledger_(std::move(ledger)), id_(id) {}

MemoryReservation::~MemoryReservation() { release(); }

MemoryReservation::MemoryReservation(MemoryReservation&& other) noexcept
    : ledger_(std::move(other.ledger_)), id_(std::exchange(other.id_, 0)) {}

MemoryReservation& MemoryReservation::operator=(MemoryReservation&& other) noexcept {
  if (this != &other) {
    release();
    ledger_ = std::move(other.ledger_);
    id_ = std::exchange(other.id_, 0);
  }
  return *this;
}

void MemoryReservation::mark_allocated() {
  if (ledger_ != nullptr) ledger_->mark_allocated(id_);
}

void MemoryReservation::release() noexcept {
  if (ledger_ == nullptr) return;
  ledger_->release(id_);
  ledger_.reset();
}

MemoryLedger::MemoryLedger(std::filesystem::path lock_file, std::chrono::milliseconds patience)
    : state_(std::make_unique<State>()) {
  state_->lock_file = std::move(lock_file);
  state_->patience = patience;
}

MemoryLedger::~MemoryLedger() = default;

std::shared_ptr<MemoryLedger> MemoryLedger::create(std::filesystem::path lock_file,
                                                   std::chrono::milliseconds patience) {
  return std::shared_ptr<MemoryLedger>(new MemoryLedger(std::move(lock_file), patience));
}

std::filesystem::path MemoryLedger::default_lock_file() {
  // A session that changed its user may still name the folder of the former one.
  if (const char* runtime = std::getenv("XDG_RUNTIME_DIR");
      runtime != nullptr && *runtime == '/' && ::access(runtime, W_OK | X_OK) == 0) {
    return std::filesystem::path(runtime) / "tandem.lock";
  }
  std::error_code error;
  const std::filesystem::path temporary = std::filesystem::temp_directory_path(error);
  if (error) return {};
  return temporary / ("tandem-" + std::to_string(::getuid()) + ".lock");
}

MemoryReservation MemoryLedger::reserve(const Measure& measure, const Decide& decide,
                                        const Cancelled& cancelled) {
  State& state = *state_;
  const auto begin = std::chrono::steady_clock::now();
  const auto deadline = begin + state.patience;
  bool announced = false;
  std::unique_lock guard(state.mutex);
  bool locked = false;
  while (!state.lock_file.empty() && !state.lock_unusable && !locked) {
    std::string holder;
    try {
      locked = state.try_join_lock(holder);
    } catch (const Error& error) {
      log().warn("{}; loads of other processes are not coordinated with this one", error.what());
      state.lock_unusable = true;
      break;
    }
    if (locked) break;
    guard.unlock();
    const std::string who = holder.empty() ? "another process" : "process " + holder;
    if (!announced && std::chrono::steady_clock::now() - begin > kSilentWait) {
      log().warn("waiting until {} has loaded its models ({})", who, state.lock_file.string());
      announced = true;
    }
    if (cancelled && cancelled())
      throw CancelledError("cancelled while waiting until " + who + " has loaded its models");
    if (std::chrono::steady_clock::now() >= deadline) {
      throw MemoryError(
          state.lock_file.string() + ": " + who + " has been loading for more than " +
          std::to_string(std::chrono::duration_cast<std::chrono::seconds>(state.patience).count()) +
          " s; end it, or try again later");
    }
    std::this_thread::sleep_for(kLockPollInterval);
    guard.lock();
  }

  try {
    std::vector<DeviceMemory> available = measure();
    state.subtract_reserved(available);
    State::Record record;
    for (const DeviceBytes& wanted : decide(available)) {
      const auto device =
          std::find_if(available.begin(), available.end(),
                       [&](const DeviceMemory& entry) { return entry.name == wanted.device; });
      const uint64_t left = device == available.end() ? 0 : device->free_bytes;
      if (wanted.bytes > left) {
        throw MemoryError(wanted.device + ": " + format_size(wanted.bytes) + " wanted, " +
                          format_size(left) + " left; " + format_size(wanted.bytes - left) +
                          " short");
      }
      if (device == available.end()) continue;
      device->free_bytes -= wanted.bytes;
      record.bytes.push_back({wanted, pool_of(*device)});
    }
    record.holds_lock = locked;
    const uint64_t id = state.next_id++;
    state.records.emplace(id, std::move(record));
    return MemoryReservation(shared_from_this(), id);
  } catch (...) {
    if (locked) state.drop_lock();
    throw;
  }
}

uint64_t MemoryLedger::reserved_bytes(const std::string& device) const {
  std::lock_guard guard(state_->mutex);
  uint64_t sum = 0;
  for (const auto& [id, record] : state_->records) {
    for (const PoolBytes& entry : record.bytes) {
      if (entry.taken.device == device) sum += entry.taken.bytes;
    }
  }
  return sum;
}

void MemoryLedger::mark_allocated(uint64_t id) {
  std::lock_guard guard(state_->mutex);
  State::Record& record = state_->records.at(id);
  record.allocated = true;
  if (std::exchange(record.holds_lock, false)) state_->drop_lock();
}

void MemoryLedger::release(uint64_t id) noexcept {
  std::lock_guard guard(state_->mutex);
  const auto record = state_->records.find(id);
  if (record == state_->records.end()) return;
  if (record->second.holds_lock) state_->drop_lock();
  state_->records.erase(record);
}

}  // namespace tandem
