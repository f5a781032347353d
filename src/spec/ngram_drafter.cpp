#include "spec/ngram_drafter.h"

#include <algorithm>
#include <bit>
#include <string>

#include "tandem/error.h"

namespace tandem {
namespace {

/// Slots for each n-gram that can occur: half of them stay empty, so that probes are short.
constexpr uint64_t kSlotsPerToken = 2;

/// FNV-1a over whole tokens, then the finaliser of MurmurHash3, because slots take the low bits.
uint64_t hash_of(std::span<const int32_t> tokens) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 0x100000001b3u;
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu;
  return hash ^ (hash >> 33);
}

uint64_t slots_for(int max_tokens) {
  return std::bit_ceil(kSlotsPerToken * static_cast<uint64_t>(std::max(max_tokens, 1)));
}

/// The last round may commit a few tokens behind the context's end.
int tokens_for(int max_positions) { return max_positions + kMaxSpeculativeTokens + 1; }

}  // namespace

NgramIndex::NgramIndex(int n, int max_tokens)
    : n_(static_cast<size_t>(n)), ends_(slots_for(max_tokens), -1) {}

void NgramIndex::clear() { std::fill(ends_.begin(), ends_.end(), -1); }

int NgramIndex::insert(std::span<const int32_t> text) {
  if (text.size() < n_) return -1;
  const auto ngram = text.last(n_);
  const size_t mask = ends_.size() - 1;
  const auto end = static_cast<int32_t>(text.size()) - 1;
  for (size_t slot = hash_of(ngram) & mask;; slot = (slot + 1) & mask) {
    const int32_t found = ends_[slot];
    if (found >= 0) {
      const auto other = text.subspan(static_cast<size_t>(found) + 1 - n_, n_);
      if (!std::equal(ngram.begin(), ngram.end(), other.begin())) continue;
    }
    ends_[slot] = end;
    return found;
  }
}

NgramDrafter::NgramDrafter(Backend& backend, int lookup_min, int lookup_max, int max_positions)
    : backend_(backend),
      proposal_(backend.make_host_buffer(kMaxSpeculativeTokens * sizeof(int32_t))) {
  if (lookup_min < 1 || lookup_max < lookup_min) {
    throw UsageError("prompt lookup needs 1 <= prompt_lookup_min <= prompt_lookup_max, not " +
                     std::to_string(lookup_min) + " and " + std::to_string(lookup_max));
  }
  const int max_tokens = tokens_for(max_positions);
  for (int n = lookup_max; n >= lookup_min; --n) indexes_.emplace_back(n, max_tokens);
  text_.reserve(static_cast<size_t>(max_tokens));
}

uint64_t NgramDrafter::host_bytes(int lookup_min, int lookup_max, int max_positions) {
  const auto tokens = static_cast<uint64_t>(tokens_for(max_positions));
  const auto sizes = static_cast<uint64_t>(lookup_max - lookup_min + 1);
  return (sizes * slots_for(tokens_for(max_positions)) + tokens) * sizeof(int32_t);
}

uint64_t NgramDrafter::host_bytes() const {
  uint64_t bytes = text_.capacity() * sizeof(int32_t);
  for (const NgramIndex& index : indexes_) bytes += index.bytes();
  return bytes;
}

void NgramDrafter::start(const RoundView&, std::span<const int32_t> prompt, const DecodeRule& rule,
                         Stream&) {
  text_.assign(prompt.begin(), prompt.end());
  prompt_tokens_ = prompt.size();
  restart(rule);
}

void NgramDrafter::restart(const DecodeRule&) {
  for (NgramIndex& index : indexes_) index.clear();
  text_.resize(prompt_tokens_);
  for (size_t tokens = 1; tokens <= prompt_tokens_; ++tokens) take_in(tokens);
}

void NgramDrafter::observe(std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) {
    text_.push_back(token);
    take_in(text_.size());
  }
}

void NgramDrafter::take_in(size_t tokens) {
  match_end_ = -1;
  for (NgramIndex& index : indexes_) {
    const int end = index.insert(std::span(text_).first(tokens));
    if (match_end_ < 0) match_end_ = end;
  }
}

int NgramDrafter::capacity(int, int wanted) const { return match_end_ >= 0 ? wanted : 0; }

int NgramDrafter::draft(const RoundView& round, const DraftRequest& request, Stream& stream) {
  // The last round has been read, so its copy is done.
  const auto count = static_cast<size_t>(request.num_drafts);
  int32_t* const proposal = proposal_.as<int32_t>();
  for (size_t i = 0; i < count; ++i) {
    const size_t from = static_cast<size_t>(match_end_) + 1 + i;
    proposal[i] = from < text_.size() ? text_[from] : proposal[from - text_.size()];
  }
  backend_.copy_to_device(round.drafts, proposal, count * sizeof(int32_t), stream);
  return request.num_drafts;
}

}  // namespace tandem
