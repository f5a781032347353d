#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/rows.h"
#include "core/memory.h"
#include "model/shard.h"

namespace tandem {

/// Slots of a page of the KV cache.
inline constexpr int kPageTokens = 32;

/// Pages that `tokens` positions take.
constexpr int pages_for(int tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

/// How large a cache is. The layers and heads come from config and shard.
struct KvCacheSize {
  int max_positions = 0;  ///< of one sequence
  int max_sequences = 1;
  int pages = 0;  ///< in all; `full_pages` gives every sequence its whole context

  int max_pages() const { return pages_for(max_positions); }  ///< of one sequence
  int full_pages() const { return max_sequences * max_pages(); }
};

/// Keys and values of every layer a rank holds, in pages of `kPageTokens` slots that sequences
/// share by reference count. A sequence is a page table; how many of its positions are valid is the
/// caller's length, so rolling back costs nothing. All bookkeeping is on the host; the page table
/// has a copy in device memory that is updated when it changes, without waiting for the stream
/// unless entries are replaced. One thread at a time.
class KvCache {
 public:
  /// Bytes of the arena that a cache of this size takes: keys and values of the shard's layers, and
  /// the page table.
  static uint64_t bytes(const ModelConfig& config, const ModelShard& shard, const KvCacheSize& size,
                        DType dtype);

  /// Takes exactly `bytes(…, backend.kv_dtype())` from the arena and clears it on `stream`.
  KvCache(const ModelConfig& config, const ModelShard& shard, const KvCacheSize& size,
          Backend& backend, Arena& arena, Stream& stream);

  /// Makes positions [0, tokens) of the sequence writable; never gives pages back.
  /// @throws MemoryError when the pages are used up or `tokens` exceeds max_positions; the sequence
  /// is then as before
  void reserve(int sequence, int tokens, Stream& stream);
  /// Gives back the pages behind position `tokens`; a sequence that is shorter stays as it is.
  void truncate(int sequence, int tokens);
  /// Replaces `to` by the first `tokens` positions of `from`: whole pages are shared, a partial
  /// last one is copied.
  /// @throws ShapeError when `from` has fewer positions or both are the same; MemoryError when no
  /// page is left, `to` being empty then
  void fork(int from, int to, int tokens, Stream& stream);

  /// The view of layer `layer` of the model (not of the shard).
  const KvLayerView& layer(int layer) const;

  int reserved_tokens(int sequence) const;  ///< what the last reserve, truncate or fork left
  int free_pages() const { return static_cast<int>(free_pages_.size()); }
  const KvCacheSize& size() const { return size_; }

 private:
  struct Sequence {
    std::vector<int32_t> pages;
    int tokens = 0;
  };

  Sequence& sequence(int index);
  /// The last page is partly filled and another sequence reads it too.
  bool ends_in_shared_page(const Sequence& sequence) const;
  void check_free(int needed) const;
  int32_t take_page();
  void release_page(int32_t page);
  void copy_page(int32_t from, int32_t to, Stream& stream);
  void upload(int sequence, Stream& stream);

  KvCacheSize size_;
  Backend& backend_;
  int first_layer_ = 0;
  std::vector<KvLayerView> layers_;
  std::vector<Sequence> sequences_;
  std::vector<int> references_;      ///< by page
  std::vector<int32_t> free_pages_;  ///< the next page to hand out is the last
  HostBuffer host_table_;            ///< (max_sequences, max_pages) i32, what the device holds
  std::vector<size_t> uploaded_;     ///< by sequence: entries that a copy may still be reading
  std::unique_ptr<Event> uploads_;   ///< behind the last copy of the table
  int32_t* device_table_ = nullptr;
};

}  // namespace tandem
