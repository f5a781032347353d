#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace tandem {

/// Words of 32 bits that the messages of a layer split's pass have at most.
struct LinkWords {
  int64_t rows = 0;    ///< the row descriptors
  int64_t hidden = 0;  ///< what a rank hands to the next one
};

/// One rank's ends of a layer split's hand-overs, through the memory of GPUs of one process that
/// reach each other's: one small kernel at each end and one trip over the link. A message is the
/// bytes of its parts behind each other, at most four parts of whole words; sender and receiver may
/// cut it differently. Operations may be captured.
///
/// Every pass begins with the leader's rows, and the leader, which is last, begins one when it is
/// through with the one before: so no message meets an earlier one that is still being read.
/// One thread at a time; `abort` from any.
class PassLink {
 public:
  virtual ~PassLink() = default;

  /// The leader's: sends the row descriptors to all others, and puts them into `copy`.
  virtual void share_rows(std::span<const TensorView> parts, TensorView copy, Stream& stream) = 0;
  /// The others'.
  virtual void receive_rows(TensorView rows, Stream& stream) = 0;
  /// To rank + 1.
  virtual void send_hidden(std::span<const TensorView> parts, Stream& stream) = 0;
  /// From rank - 1.
  virtual void receive_hidden(std::span<const TensorView> parts, Stream& stream) = 0;
  /// Makes kernels that wait give up, now or later, on every rank. What they were to give is
  /// undefined, but ids, slots and sequences among it are valid ones.
  virtual void abort() noexcept = 0;
};

/// A rank that is to take part.
struct LinkMember {
  Backend* backend = nullptr;
  TensorView memory;  ///< on its device, `link_memory_bytes` of them; lives as long as the link
};

/// Bytes of device memory of a rank; 0 on devices that have no such thing, and for more ranks than
/// the kernels take. Pure arithmetic, for plans.
int64_t link_memory_bytes(DeviceKind kind, int ranks, const LinkWords& words);

/// Links the ranks, in rank order, the last one being the leader; empty when their devices do not
/// reach each other's memory. @throws DeviceError
std::vector<std::unique_ptr<PassLink>> link_ranks(std::span<const LinkMember> members,
                                                  const LinkWords& words);

}  // namespace tandem
