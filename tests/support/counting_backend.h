#pragma once

#include <memory>
#include <string>
#include <utility>

#include "support/forwarding_backend.h"

namespace tandem::test {

/// What a CountingBackend was asked for so far.
struct Counters {
  int64_t allocations = 0;   ///< of device memory
  int64_t host_buffers = 0;  ///< page-locked memory
  int64_t stream_waits = 0;  ///< the host waited for a whole stream
  int64_t event_waits = 0;   ///< the host waited for an event
};

/// Counts on the CPU what keeps a device from running ahead: allocations and waits of the host.
class CountingBackend : public ForwardingBackend {
 public:
  explicit CountingBackend(std::unique_ptr<Backend> inner)
      : ForwardingBackend(std::move(inner)), memory_(this->inner().memory(), counters_) {}

  const Counters& counters() const { return counters_; }

  MemoryResource& memory() override { return memory_; }
  HostBuffer make_host_buffer(size_t bytes) override {
    ++counters_.host_buffers;
    return inner().make_host_buffer(bytes);
  }
  std::unique_ptr<Stream> make_stream() override {
    return std::make_unique<CountingStream>(inner().make_stream(), counters_);
  }
  std::unique_ptr<Event> make_event() override {
    return std::make_unique<CountingEvent>(inner().make_event(), counters_);
  }

 private:
  class CountingMemory final : public MemoryResource {
   public:
    CountingMemory(MemoryResource& inner, Counters& counters)
        : inner_(inner), counters_(counters) {}
    void* allocate(size_t bytes, std::string_view purpose) override {
      ++counters_.allocations;
      return inner_.allocate(bytes, purpose);
    }
    void release(void* data, size_t bytes) noexcept override { inner_.release(data, bytes); }
    DeviceId device() const override { return inner_.device(); }
    uint64_t capacity_bytes() const override { return inner_.capacity_bytes(); }
    uint64_t allocated_bytes() const override { return inner_.allocated_bytes(); }
    uint64_t free_bytes() const override { return inner_.free_bytes(); }

   private:
    MemoryResource& inner_;
    Counters& counters_;
  };

  class CountingEvent final : public Event {
   public:
    CountingEvent(std::unique_ptr<Event> inner, Counters& counters)
        : inner_(std::move(inner)), counters_(counters) {}
    void wait() override {
      ++counters_.event_waits;
      inner_->wait();
    }
    bool done() const override { return inner_->done(); }
    double seconds_since(const Event& earlier) const override {
      return inner_->seconds_since(*static_cast<const CountingEvent&>(earlier).inner_);
    }
    Event& inner() const { return *inner_; }

   private:
    std::unique_ptr<Event> inner_;
    Counters& counters_;
  };

  /// The CPU's ops ignore their stream, so that this one may stand for it.
  class CountingStream final : public Stream {
   public:
    CountingStream(std::unique_ptr<Stream> inner, Counters& counters)
        : inner_(std::move(inner)), counters_(counters) {}
    void record(Event& event) override {
      inner_->record(static_cast<CountingEvent&>(event).inner());
    }
    void wait(const Event& event) override {
      inner_->wait(static_cast<const CountingEvent&>(event).inner());
    }
    void synchronize() override {
      ++counters_.stream_waits;
      inner_->synchronize();
    }

   private:
    std::unique_ptr<Stream> inner_;
    Counters& counters_;
  };

  Counters counters_;
  CountingMemory memory_;
};

}  // namespace tandem::test
