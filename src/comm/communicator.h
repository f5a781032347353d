#pragma once

#include <string>

#include "core/stream.h"
#include "core/tensor_view.h"

namespace tandem {

/// One rank's end of a group of devices. Every rank calls the same operations in the same order
/// with the same shapes. Operations are ordered by the stream and may return before they are done;
/// views must stay valid until then. Every rank gets the same bits, and a repetition gives them
/// again. One thread at a time per rank; `abort` and `failure` may be called from any thread.
/// @throws DeviceError once the group was aborted or a peer failed; ShapeError when views do not
/// fit together
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// values = the sum of every rank's values, float32, in place. The order of the additions may
  /// depend on the number of elements: sums that must not depend on it are gathered and added up by
  /// `Backend::add_parts`.
  virtual void all_reduce_sum(TensorView values, Stream& stream) = 0;
  /// gathered[r] = rank r's values: gathered has size() times the elements, rank by rank. `values`
  /// may be this rank's own part of it.
  virtual void all_gather(TensorView values, TensorView gathered, Stream& stream) = 0;
  /// values = the root's values.
  virtual void broadcast(TensorView values, int root, Stream& stream) = 0;
  virtual void send(TensorView values, int to, Stream& stream) = 0;
  virtual void recv(TensorView values, int from, Stream& stream) = 0;

  /// Wakes every rank that waits, now or later, with a DeviceError that carries the reason. Final.
  virtual void abort(const std::string& reason) = 0;
  /// What went wrong since, with this rank or, as far as this one can tell, with another: for work
  /// that was queued and fails later. Empty while all is well.
  virtual std::string failure() const = 0;
  /// Whether this rank's thread is waiting for other ranks at this moment. Any thread may ask.
  virtual bool waiting() const { return false; }

 protected:
  /// @throws ShapeError unless the group has such a rank
  void check_rank(int rank) const;
  /// @throws ShapeError unless the group has such a rank and it is another one
  void check_other(int other) const;
};

}  // namespace tandem
