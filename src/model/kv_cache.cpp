#include "model/kv_cache.h"

#include <algorithm>
#include <string>

#include "tandem/error.h"

namespace tandem {
namespace {

/// Keys, or values, of one layer.
Shape pages_shape(const ModelConfig& config, const ModelShard& shard, const KvCacheSize& size) {
  return {size.pages, shard.kv_heads.size(), kPageTokens, config.head_dim};
}

Shape table_shape(const KvCacheSize& size) { return {size.max_sequences, size.max_pages()}; }

}  // namespace

uint64_t KvCache::bytes(const ModelConfig& config, const ModelShard& shard, const KvCacheSize& size,
                        DType dtype) {
  ArenaSize total;
  for (int64_t layer = shard.layers.begin; layer < shard.layers.end; ++layer) {
    total.add(dtype, pages_shape(config, shard, size)).add(dtype, pages_shape(config, shard, size));
  }
  return total.add(DType::kI32, table_shape(size)).bytes();
}

KvCache::KvCache(const ModelConfig& config, const ModelShard& shard, const KvCacheSize& size,
                 Backend& backend, Arena& arena, Stream& stream)
    : size_(size), backend_(backend), first_layer_(static_cast<int>(shard.layers.begin)) {
  for (int64_t layer = shard.layers.begin; layer < shard.layers.end; ++layer) {
    KvLayerView view;
    view.keys = arena.take(backend.kv_dtype(), pages_shape(config, shard, size));
    view.values = arena.take(backend.kv_dtype(), pages_shape(config, shard, size));
    // A masked score has weight 0, but 0 times the NaN of uninitialised memory would not vanish.
    backend.fill_zero(view.keys.data(), view.keys.bytes(), stream);
    backend.fill_zero(view.values.data(), view.values.bytes(), stream);
    view.max_pages = size.max_pages();
    view.page_tokens = kPageTokens;
    view.kv_heads = static_cast<int>(shard.kv_heads.size());
    view.head_dim = config.head_dim;
    layers_.push_back(view);
  }
  const TensorView table = arena.take(DType::kI32, table_shape(size));
  backend.fill_zero(table.data(), table.bytes(), stream);
  device_table_ = table.as<int32_t>();
  for (KvLayerView& view : layers_) view.page_table = device_table_;

  host_table_ = backend.make_host_buffer(table.bytes());
  std::fill_n(host_table_.as<int32_t>(), table.count(), 0);
  uploaded_.assign(static_cast<size_t>(size.max_sequences), 0);
  uploads_ = backend.make_event();
  sequences_.resize(static_cast<size_t>(size.max_sequences));
  references_.assign(static_cast<size_t>(size.pages), 0);
  for (int32_t page = size.pages - 1; page >= 0; --page) free_pages_.push_back(page);
}

const KvLayerView& KvCache::layer(int layer) const {
  return layers_.at(static_cast<size_t>(layer - first_layer_));
}

int KvCache::reserved_tokens(int sequence) const {
  return sequences_.at(static_cast<size_t>(sequence)).tokens;
}

KvCache::Sequence& KvCache::sequence(int index) {
  if (index < 0 || index >= size_.max_sequences) {
    throw ShapeError("KV cache: sequence " + std::to_string(index) + " of " +
                     std::to_string(size_.max_sequences));
  }
  return sequences_[static_cast<size_t>(index)];
}

bool KvCache::ends_in_shared_page(const Sequence& sequence) const {
  if (sequence.tokens % kPageTokens == 0) return false;
  return references_[static_cast<size_t>(sequence.pages.back())] > 1;
}

void KvCache::reserve(int index, int tokens, Stream& stream) {
  Sequence& s = sequence(index);
  if (tokens <= s.tokens) return;
  if (tokens > size_.max_positions) {
    throw MemoryError("KV cache: " + std::to_string(tokens) +
                      " positions were asked for, the context has " +
                      std::to_string(size_.max_positions));
  }
  // What lies behind `tokens` in a shared page is about to be written: this sequence needs a page
  // of its own.
  const bool copy_last = ends_in_shared_page(s);
  const int needed = pages_for(tokens) - static_cast<int>(s.pages.size()) + (copy_last ? 1 : 0);
  check_free(needed);
  if (copy_last) {
    const int32_t shared = s.pages.back();
    s.pages.back() = take_page();
    copy_page(shared, s.pages.back(), stream);
    release_page(shared);
  }
  while (static_cast<int>(s.pages.size()) < pages_for(tokens)) s.pages.push_back(take_page());
  s.tokens = tokens;
  upload(index, stream);
}

void KvCache::truncate(int index, int tokens) {
  Sequence& s = sequence(index);
  if (tokens < 0)
    throw ShapeError("KV cache: a sequence cannot have " + std::to_string(tokens) + " positions");
  if (tokens >= s.tokens) return;
  while (static_cast<int>(s.pages.size()) > pages_for(tokens)) {
    release_page(s.pages.back());
    s.pages.pop_back();
  }
  s.tokens = tokens;
}

void KvCache::fork(int from, int to, int tokens, Stream& stream) {
  const Sequence& source = sequence(from);
  Sequence& target = sequence(to);
  if (from == to || tokens < 0 || tokens > source.tokens) {
    throw ShapeError("KV cache: cannot fork " + std::to_string(tokens) + " positions of sequence " +
                     std::to_string(from) + ", which has " + std::to_string(source.tokens) +
                     ", into sequence " + std::to_string(to));
  }
  truncate(to, 0);
  const auto whole_pages = static_cast<size_t>(tokens / kPageTokens);
  const bool partial = tokens % kPageTokens != 0;
  check_free(partial ? 1 : 0);
  for (size_t i = 0; i < whole_pages; ++i) {
    target.pages.push_back(source.pages[i]);
    ++references_[static_cast<size_t>(source.pages[i])];
  }
  if (partial) {
    target.pages.push_back(take_page());
    copy_page(source.pages[whole_pages], target.pages.back(), stream);
  }
  target.tokens = tokens;
  upload(to, stream);
}

void KvCache::check_free(int needed) const {
  if (needed <= free_pages()) return;
  throw MemoryError("KV cache: " + std::to_string(needed) + " more pages of " +
                    std::to_string(kPageTokens) + " tokens are needed, " +
                    std::to_string(free_pages()) + " of " + std::to_string(size_.pages) +
                    " are free");
}

int32_t KvCache::take_page() {
  const int32_t page = free_pages_.back();
  free_pages_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

void KvCache::release_page(int32_t page) {
  if (--references_[static_cast<size_t>(page)] == 0) free_pages_.push_back(page);
}

void KvCache::copy_page(int32_t from, int32_t to, Stream& stream) {
  for (const KvLayerView& view : layers_) {
    for (const TensorView& tensor : {view.keys, view.values}) {
      const TensorView target = tensor.rows(to, 1);
      backend_.copy(target.data(), tensor.rows(from, 1).data(), target.bytes(), stream);
    }
  }
}

void KvCache::upload(int index, Stream& stream) {
  const std::vector<int32_t>& pages = sequences_[static_cast<size_t>(index)].pages;
  const size_t row = static_cast<size_t>(index) * static_cast<size_t>(size_.max_pages());
  // Entries behind the sequence's pages may be stale: no row ever looks at a slot that is not
  // reserved.
  int32_t* const entries = host_table_.as<int32_t>() + row;
  const auto changed = std::mismatch(pages.begin(), pages.end(), entries);
  if (changed.first == pages.end()) return;
  const auto first = static_cast<size_t>(changed.first - pages.begin());
  size_t& uploaded = uploaded_[static_cast<size_t>(index)];
  if (first < uploaded) {
    uploads_->wait();
    std::fill(uploaded_.begin(), uploaded_.end(), size_t{0});
  }
  std::copy(changed.first, pages.end(), changed.second);
  backend_.copy_to_device(device_table_ + row + first, entries + first,
                          (pages.size() - first) * sizeof(int32_t), stream);
  stream.record(*uploads_);
  uploaded = pages.size();
}

}  // namespace tandem
