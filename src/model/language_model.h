#pragma once

#include <functional>
#include <memory>

#include "backend/backend.h"
#include "backend/rows.h"

namespace tandem {

/// A causal language model with its cache, as the decoding loop sees it: rows in, logits out.
/// Implemented by Transformer (and, in tests, by tables). One thread at a time.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  virtual Backend& backend() = 0;      ///< of the device on which rows are given and logits appear
  virtual int vocab_size() const = 0;  ///< columns of the logits
  virtual int max_positions() const = 0;  ///< the context this model was planned for
  virtual int max_rows() const = 0;       ///< rows of one pass at most (a prefill chunk)
  /// Rows of one pass at most whose logits can be asked for.
  virtual int max_logits_rows() const { return max_rows(); }

  /// Makes positions [0, tokens) of the sequence writable. Host-side bookkeeping; call before
  /// launching a round.
  /// @throws MemoryError when the pages are used up
  virtual void reserve(int sequence, int tokens, Stream& stream) = 0;
  /// Gives the pages behind `tokens` back (0: all of them).
  virtual void truncate(int sequence, int tokens, Stream& stream) = 0;
  /// Makes `to` start with the first `tokens` positions of `from`, sharing whole pages.
  virtual void fork(int from, int to, int tokens, Stream& stream) = 0;

  /// Runs the rows, writing their keys and values provisionally at their slots, and returns the
  /// logits of rows [first_logits_row, rows.count): (count - first, vocab) f32, valid until the
  /// next forward of this model. With first_logits_row == rows.count the head is skipped and the
  /// view is empty.
  virtual TensorView forward(const Rows& rows, int first_logits_row, Stream& stream) = 0;

  /// As `forward`, with no more of a row's logits than which is the largest: ids[r] = the smallest
  /// id that has it of row first_row + r. `ids` lies on `backend()`'s device.
  virtual void forward_argmax(const Rows& rows, int first_row, int32_t* ids, Stream& stream);

  /// Call it once queued passes are done: tells of what went wrong on devices meanwhile.
  /// @throws DeviceError, and what the passes gave means nothing
  virtual void check() const {}

  /// Work of this model that is queued later on `device` starts after the event, where the model
  /// works there on a stream that the caller does not see. For what else shares that device.
  virtual void hold(DeviceId /*device*/, const Event& /*until*/) {}

  /// Captures work on `stream` that may hold passes of this model, whichever devices they run on.
  /// The graph must go before the model.
  virtual std::unique_ptr<Graph> capture(Stream& stream, const std::function<void()>& work) {
    return backend().capture(stream, work);
  }
};

}  // namespace tandem
