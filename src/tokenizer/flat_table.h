#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem {

/// A hash table from 64-bit keys to small values in one flat array (linear probing, at most half
/// full). Built once, then read by several threads. Keys must differ from ~0.
template <typename Value>
class FlatTable {
 public:
  explicit FlatTable(size_t expected = 0) : slots_(std::bit_ceil(2 * expected + 2)) {}

  /// Sets the value of a key, replacing the one it had.
  void set(uint64_t key, const Value& value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[find_slot(key)];
    if (slot.key == kEmpty) ++size_;
    slot = {key, value};
  }

  /// The value of a key; null when it has none.
  const Value* find(uint64_t key) const {
    const Slot& slot = slots_[find_slot(key)];
    return slot.key == kEmpty ? nullptr : &slot.value;
  }

  size_t size() const { return size_; }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Value value{};
  };

  size_t find_slot(uint64_t key) const {
    constexpr uint64_t kGoldenRatio =
        0x9E3779B97F4A7C15;  // spreads neighbouring keys (Fibonacci hashing)
    const size_t mask = slots_.size() - 1;
    uint64_t hash = (key ^ (key >> 32)) * kGoldenRatio;
    hash ^= hash >> 29;
    size_t i = static_cast<size_t>(hash) & mask;
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask;
    return i;
  }

  void grow() {
    FlatTable larger(slots_.size());
    for (const Slot& slot : slots_) {
      if (slot.key != kEmpty) larger.set(slot.key, slot.value);
    }
    *this = std::move(larger);
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace tandem
