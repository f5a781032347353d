#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tandem {

/// What a device has at one moment.
struct DeviceMemory {
  std::string name;             ///< "cuda:0", "cpu:1"
  uint64_t capacity_bytes = 0;  ///< of the whole device
  uint64_t free_bytes = 0;      ///< what the device says it could still give
  /// What the bytes are taken from: devices that name the same pool are equal parts of it. Empty: a
  /// pool of the device's own.
  std::string pool = {};
};

/// An amount on one device.
struct DeviceBytes {
  std::string device;
  uint64_t bytes = 0;
};

class MemoryLedger;

/// Bytes that a ledger keeps for one engine. Move-only; given back by the destructor. One thread at
/// a time.
class MemoryReservation {
 public:
  MemoryReservation() = default;
  ~MemoryReservation();
  MemoryReservation(MemoryReservation&& other) noexcept;
  MemoryReservation& operator=(MemoryReservation&& other) noexcept;

  /// Everything reserved has been allocated: from now on the device's own free figure shows it, and
  /// other processes may load. Call it as soon as that is true; it lets them go on.
  void mark_allocated();
  /// Gives the bytes back before the destructor does.
  void release() noexcept;
  bool empty() const { return ledger_ == nullptr; }

 private:
  friend class MemoryLedger;
  MemoryReservation(std::shared_ptr<MemoryLedger> ledger, uint64_t id);
  std::shared_ptr<MemoryLedger> ledger_;
  uint64_t id_ = 0;
};

/// Coordinates what several engines take from the same devices, so that two loads at once never
/// count the same free bytes. Engines of one process share one ledger, passed to them explicitly.
///
/// Within a ledger, a reservation counts from `reserve` to its destruction. Between ledgers (other
/// processes, or engines that were given none) a lock file keeps loads apart: it is held from the
/// look at the free bytes until `mark_allocated`, after which the device's own figure tells. The
/// kernel drops the lock when its holder dies. Simulated devices have no figure of their own beyond
/// a ledger: only engines that share one share their memory. Thread-safe.
class MemoryLedger : public std::enable_shared_from_this<MemoryLedger> {
 public:
  /// How long a load waits for another process's load before it gives up.
  static constexpr std::chrono::milliseconds kDefaultPatience = std::chrono::minutes(10);

  /// @param lock_file empty: no coordination beyond this ledger. A file that cannot be opened gives
  /// a warning and the same.
  static std::shared_ptr<MemoryLedger> create(
      std::filesystem::path lock_file = {}, std::chrono::milliseconds patience = kDefaultPatience);
  /// $XDG_RUNTIME_DIR/tandem.lock; where that folder is missing or not writable,
  /// tandem-<user id>.lock in the temporary directory. Reads the environment: call it at start-up.
  static std::filesystem::path default_lock_file();
  ~MemoryLedger();
  MemoryLedger(const MemoryLedger&) = delete;
  MemoryLedger& operator=(const MemoryLedger&) = delete;

  /// Measures the devices; must not call the ledger.
  using Measure = std::function<std::vector<DeviceMemory>()>;
  /// Chooses what to take, given what is left for it; throws to take nothing. Must not call the
  /// ledger.
  using Decide =
      std::function<std::vector<DeviceBytes>(const std::vector<DeviceMemory>& available)>;
  /// Asked now and then while waiting for another process; true gives up.
  using Cancelled = std::function<bool()>;

  /// Looks, decides and reserves as one step.
  /// @throws MemoryError when `decide` takes more than is left, or when another process does not
  /// finish its load in time; CancelledError when cancelled while waiting; whatever `measure` and
  /// `decide` throw. Nothing is reserved then.
  MemoryReservation reserve(const Measure& measure, const Decide& decide,
                            const Cancelled& cancelled = {});

  /// Bytes of a device that live reservations hold.
  uint64_t reserved_bytes(const std::string& device) const;

 private:
  friend class MemoryReservation;
  struct State;
  MemoryLedger(std::filesystem::path lock_file, std::chrono::milliseconds patience);
  void mark_allocated(uint64_t id);
  void release(uint64_t id) noexcept;

  std::unique_ptr<State> state_;
};

}  // namespace tandem
