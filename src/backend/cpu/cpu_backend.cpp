#include "backend/cpu/cpu_backend.h"

#include <chrono>
#include <cstring>

namespace tandem {
namespace {

int64_t nanoseconds_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class CpuEvent final : public Event {
 public:
  void wait() override {}  // the work before it was done when it was recorded
  bool done() const override { return true; }
  double seconds_since(const Event& earlier) const override {
    constexpr double kSecondsPerNanosecond = 1e-9;
    const int64_t start = dynamic_cast<const CpuEvent&>(earlier).time_.load();
    return static_cast<double>(time_.load() - start) * kSecondsPerNanosecond;
  }
  void set() { time_ = nanoseconds_now(); }

 private:
  std::atomic<int64_t> time_{0};  // other threads may ask for it
};

class CpuStream final : public Stream {
 public:
  void record(Event& event) override { dynamic_cast<CpuEvent&>(event).set(); }
  void wait(const Event&) override {}
  void synchronize() override {}
};

class CpuGraph final : public Graph {
 public:
  explicit CpuGraph(std::function<void()> work) : work_(std::move(work)) {}
  void launch(Stream&) override { work_(); }

 private:
  std::function<void()> work_;
};

}  // namespace

CpuBackend::CpuBackend(DeviceId device, const Options& options)
    : device_(device),
      memory_(device, options.capacity_bytes),
      pool_(options.threads),
      kernels_(cpu_kernels(options.isa.value_or(best_isa()))),
      isa_(options.isa.value_or(best_isa())),
      scratch_(static_cast<size_t>(pool_.size())) {}

CpuBackend::~CpuBackend() = default;

std::string CpuBackend::description() const {
  return to_string(device_) + ", " + std::to_string(pool_.size()) +
         (pool_.size() == 1 ? " thread, " : " threads, ") + std::string(name_of(isa_));
}

std::unique_ptr<Stream> CpuBackend::make_stream() { return std::make_unique<CpuStream>(); }

std::unique_ptr<Event> CpuBackend::make_event() { return std::make_unique<CpuEvent>(); }

std::unique_ptr<Graph> CpuBackend::capture(Stream&, const std::function<void()>& work) {
  return std::make_unique<CpuGraph>(work);
}

HostBuffer CpuBackend::make_host_buffer(size_t bytes) {
  return {allocate_aligned(bytes), bytes, [](void* data) noexcept { AlignedDelete()(data); }};
}

void CpuBackend::copy_to_device(void* device, const void* host, size_t bytes, Stream& stream) {
  copy(device, host, bytes, stream);
}

void CpuBackend::copy_to_host(void* host, const void* device, size_t bytes, Stream& stream) {
  copy(host, device, bytes, stream);
}

void CpuBackend::copy(void* to, const void* from, size_t bytes, Stream&) {
  if (bytes > 0) std::memmove(to, from, bytes);
}

void CpuBackend::fill_zero(void* data, size_t bytes, Stream&) {
  if (bytes > 0) std::memset(data, 0, bytes);
}

float* CpuBackend::scratch(int worker, size_t count) {
  Scratch& mine = scratch_[static_cast<size_t>(worker)];
  if (mine.count < count) {
    mine.data.reset(static_cast<float*>(allocate_aligned(count * sizeof(float))));
    mine.count = count;
  }
  return mine.data.get();
}

}  // namespace tandem
