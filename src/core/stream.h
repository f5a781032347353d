#pragma once

#include <functional>
#include <memory>

namespace tandem {

class Stream;

/// A point in a stream's work. Recorded by `Stream::record`.
class Event {
 public:
  virtual ~Event() = default;
  virtual void wait() = 0;        ///< blocks the host until the work before the event is done
  virtual bool done() const = 0;  ///< never blocks
  /// Seconds between two recorded and finished events of the same device.
  virtual double seconds_since(const Event& earlier) const = 0;
};

/// An ordered queue of work on one device. Passed as an argument, never global. The CPU backend
/// runs work at once.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void record(Event& event) = 0;
  virtual void wait(const Event& event) = 0;  ///< later work of this stream starts after the event
  virtual void synchronize() = 0;             ///< blocks the host until the stream is empty
  /// The device library's own stream (a cudaStream_t), for the next piece of work that no Backend
  /// queues; null where there is none.
  virtual void* native_handle() { return nullptr; }
};

/// Work that was captured once and can be launched many times.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch(Stream& stream) = 0;
};

}  // namespace tandem
