#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace tandem {

/// One rank's end of small exchanges through the memory of GPUs of one process that reach each
/// other's: one kernel and one trip over the link. Every rank calls the same operations in the same
/// order; they may be captured. One thread at a time; `abort` from any.
class PeerExchange {
 public:
  virtual ~PeerExchange() = default;

  /// 32-bit words that an exchange may have at most.
  virtual int64_t max_words() const = 0;
  /// out += rank 0's terms + rank 1's terms + …, in this order: the bits of gathering and
  /// `Backend::add_parts`. float32, a multiple of 4 elements.
  virtual void add(TensorView terms, TensorView out, Stream& stream) = 0;
  /// `add` to hidden, then normed = the norm of hidden: the bits of `Backend::add_parts_norm`.
  virtual void add_norm(TensorView terms, TensorView hidden, TensorView norm_weight,
                        const NormedRows& normed, Stream& stream) = 0;
  /// ids[r] = what `Backend::join_argmax` gives of all ranks' choices, (rows, 2) each, of at most
  /// kMostChoices rows. Null: this rank does not want them.
  virtual void join_argmax(TensorView choices, int32_t* ids, Stream& stream) = 0;
  static constexpr int64_t kMostChoices = 256;
  /// words = the root's words; elements of 4 bytes, a multiple of 4 of them.
  virtual void broadcast(TensorView words, int root, Stream& stream) = 0;
  /// Makes kernels that wait give up, now or later, on every rank. What they were to give is
  /// undefined, but ids, slots and sequences among it are valid ones.
  virtual void abort() noexcept = 0;
};

/// A rank that is to take part.
struct PeerMember {
  Backend* backend = nullptr;
  TensorView memory;  ///< on its device, `peer_memory_bytes` of them; lives as long as the exchange
};

/// Bytes of device memory of a rank for exchanges of up to `max_words`; 0 on devices that have no
/// such thing, and for more ranks than the kernels take. Pure arithmetic, for plans.
int64_t peer_memory_bytes(DeviceKind kind, int ranks, int64_t max_words);

/// Joins the ranks, in rank order; empty when their devices do not reach each other's memory.
/// @throws DeviceError
std::vector<std::unique_ptr<PeerExchange>> join_peers(std::span<const PeerMember> members,
                                                      int64_t max_words);

/// Lets each of two devices reach the other's memory, so that `Backend::copy` goes straight from
/// one to the other. @return false where they cannot: copies then go through the host's memory, in
/// the stream's order all the same. @throws DeviceError
bool open_peers(Backend& one, Backend& other);

}  // namespace tandem
