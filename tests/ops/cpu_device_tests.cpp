#include <sys/resource.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cpu_memory.h"
#include "backend/cpu/packing.h"
#include "core/size.h"
#include "support/catch.h"
#include "tandem/error.h"

namespace tandem {
namespace {

TEST_CASE("Every worker runs every job once, and results are visible at its end") {
  for (const int threads : {1, 2, 3, 5, 8}) {
    ThreadPool pool(threads);
    REQUIRE(pool.size() == threads);
    // Deliberately not atomic: the pool alone must order the accesses (ThreadSanitizer watches).
    std::vector<int> counts(static_cast<size_t>(threads), 0);
    int jobs = 0, sum = 0;
    for (; jobs < 300; ++jobs) {
      pool.run([&](int worker) { counts[static_cast<size_t>(worker)] += jobs; });
      sum += jobs;
    }
    for (const int count : counts) CHECK(count == sum);
  }
}

TEST_CASE("Workers that have fallen asleep wake up for the next job") {
  ThreadPool pool(3);
  std::atomic<int> calls{0};
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // longer than they spin
    pool.run([&](int) { ++calls; });
  }
  CHECK(calls == 15);
}

TEST_CASE("Idle workers sleep instead of burning the processor") {
  ThreadPool pool(2);
  pool.run([](int) {});
  const auto cpu_seconds = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
  };
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(cpu_seconds() - before < 0.05);
}

TEST_CASE("Items are dealt out completely and once, whatever the numbers") {
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 2, 3, 7, 100}) {
      for (const bool parallel : {false, true}) {
        std::vector<int> seen(static_cast<size_t>(count), 0);
        pool.for_each(count, parallel, [&](int64_t item) { ++seen[static_cast<size_t>(item)]; });
        CHECK(seen == std::vector<int>(static_cast<size_t>(count), 1));
      }
    }
  }
}

TEST_CASE("Several pools of several threads work side by side") {
  std::vector<std::thread> callers;
  std::atomic<int> total{0};
  for (int c = 0; c < 3; ++c) {
    callers.emplace_back([&] {
      ThreadPool pool(2);
      std::vector<int> counts(2, 0);
      for (int i = 0; i < 200; ++i) {
        pool.run([&](int worker) { ++counts[static_cast<size_t>(worker)]; });
      }
      total += counts[0] + counts[1];
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(total == 3 * 2 * 200);
}

TEST_CASE("A pool may be used from one thread after another") {
  ThreadPool pool(2);
  int sum = 0;
  for (int i = 0; i < 10; ++i) {
    std::thread([&] {
      int parts[2] = {};
      pool.run([&](int worker) { parts[worker] = worker + 1; });
      sum += parts[0] + parts[1];
    }).join();
  }
  CHECK(sum == 30);
}

TEST_CASE("A simulated device counts its memory and refuses what does not fit") {
  CpuMemory memory({DeviceKind::kCpu, 1}, kMiB);
  CHECK(memory.capacity_bytes() == kMiB);
  CHECK(memory.free_bytes() == kMiB);
  {
    DeviceBuffer half(memory, kMiB / 2, "weights");
    CHECK(reinterpret_cast<uintptr_t>(half.data()) % kDeviceAlignment == 0);
    CHECK(memory.allocated_bytes() == kMiB / 2);
    CHECK_THROWS_AS(memory.allocate(kMiB / 2 + 1, "KV cache"), MemoryError);
    CHECK_THROWS_WITH(memory.allocate(kMiB, "KV cache"), ContainsText("cpu:1") &&
                                                             ContainsText("KV cache") &&
                                                             ContainsText("524288 bytes"));
    CHECK_THROWS_AS(memory.allocate(~size_t{0}, "everything"), MemoryError);
    CHECK(memory.allocated_bytes() == kMiB / 2);
    const DeviceBuffer rest(memory, kMiB / 2, "the rest");
    CHECK(memory.free_bytes() == 0);
  }
  CHECK(memory.allocated_bytes() == 0);
}

TEST_CASE("Memory of a real device is bounded by the machine's") {
  const CpuMemory memory({}, std::nullopt);
  CHECK(memory.capacity_bytes() == physical_memory_bytes());
  CHECK(memory.free_bytes() <= memory.capacity_bytes());
  CHECK(memory.free_bytes() > 0);
  CpuMemory huge({}, uint64_t{1} << 62);
  CHECK_THROWS_AS(huge.allocate(uint64_t{1} << 60, "far too much"), MemoryError);
  CHECK(huge.allocated_bytes() == 0);
}

TEST_CASE("Memory is counted right when threads allocate at once") {
  CpuMemory memory({}, kMiB);
  std::vector<std::thread> threads;
  std::atomic<int> refused{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        try {
          const DeviceBuffer buffer(memory, 300 * kKiB, "share");
          if (memory.allocated_bytes() > kMiB) ++refused;
        } catch (const MemoryError&) {
          ++refused;  // four times 300 KiB do not fit
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(memory.allocated_bytes() == 0);
}

TEST_CASE("Packed weights take the bytes that their formula says, and no more") {
  const auto bytes = [](const WeightSpec& spec) {
    return packed_weight_bytes(DeviceKind::kCpu, spec);
  };
  const auto spec = [](std::vector<WeightSpec::Segment> segments, int64_t cols, bool paired,
                       bool has_bias) {
    return WeightSpec{
        .cols = cols, .segments = std::move(segments), .paired = paired, .has_bias = has_bias};
  };
  using enum WeightFormat;
  CHECK(bytes(spec({{512, kBF16}, {256, kBF16}, {256, kBF16}}, 320, false, false)) ==
        1024 * 320 * 2);
  CHECK(bytes(spec({{17, kBF16}}, 3, false, false)) == 2 * 2 * 64);  // two panels of two lines
  CHECK(bytes(spec({{16, kF32}}, 4, false, false)) == 256);
  CHECK(bytes(spec({{896, kBF16}, {896, kBF16}}, 320, true, false)) == 1792 * 320 * 2);
  CHECK(bytes(spec({{16, kF16}}, 8, false, true)) == 512);  // 256, and 32 floats of bias aligned
  CHECK(bytes(spec({{128, kFp8E4M3}}, 64, false, false)) == 128 * 64 + 128 * 4);  // and scales
  // Four panels of two groups, the second one full or short.
  CHECK(bytes(spec({{64, kInt4Group128}}, 256, false, false)) == 64 * 256 / 2 + 4 * 2 * 64);
  CHECK(bytes(spec({{64, kInt4Group128}}, 192, false, false)) == 64 * 192 / 2 + 4 * 2 * 64);
  CHECK(bytes(spec({{32, kInt4Group128}, {32, kInt4Group128}}, 128, true, false)) ==
        64 * 128 / 2 + 4 * 64);
  CHECK_THROWS_AS(bytes(spec({{16, kBF16}, {32, kBF16}}, 16, true, false)), ShapeError);
  CHECK_THROWS_AS(bytes(spec({}, 16, false, false)), ShapeError);

  // Loading writes up to the last byte of the formula and not behind it.
  CpuBackend backend({}, {.threads = 3, .capacity_bytes = std::nullopt, .isa = std::nullopt});
  const std::unique_ptr<Stream> stream = backend.make_stream();
  for (const bool has_bias : {false, true}) {
    const WeightSpec odd = spec({{21, kBF16}, {40, kF32}}, 7, false, has_bias);
    const std::vector<uint16_t> first(21 * 7, 0x3f80);
    const std::vector<float> second(40 * 7, 1.0f);
    const std::vector<float> bias(has_bias ? 61 : 0, 1.0f);
    constexpr std::byte kMark{0x5a};
    const uint64_t size = bytes(odd);
    std::vector<std::byte> memory(size + 64, kMark);
    const HostMatrix hosts[] = {
        {.data = first.data(), .dtype = DType::kBF16, .rows = 21, .cols = 7, .row_stride = 7},
        {.data = second.data(), .dtype = DType::kF32, .rows = 40, .cols = 7, .row_stride = 7}};
    backend.load_weight(odd, hosts, bias, memory.data(), *stream);
    for (size_t i = size; i < memory.size(); ++i) REQUIRE(memory[i] == kMark);
  }
}

TEST_CASE("Panel groups cut a share into even pieces without gaps") {
  for (const bool paired : {false, true}) {
    const int64_t unit = paired ? 2 : 1;
    const int64_t most = paired ? kPairedGroupPanels : kGroupPanels;
    for (int64_t begin : {int64_t{0}, 3 * unit}) {
      for (int64_t units = 1; units < 40; ++units) {
        const int64_t end = begin + units * unit;
        int64_t smallest = most, groups = 0;
        for (int64_t panel = begin; panel < end; ++groups) {
          const PanelGroup group = panel_group(begin, end, paired, panel);
          REQUIRE(group.first == panel);
          REQUIRE((group.count > 0 && group.count <= most && group.count % unit == 0));
          for (int64_t inside = panel; inside < panel + group.count; ++inside) {
            REQUIRE(panel_group(begin, end, paired, inside).first == panel);
          }
          smallest = std::min(smallest, group.count);
          panel += group.count;
        }
        CHECK(groups == (end - begin + most - 1) / most);
        CHECK(smallest >= (end - begin) / groups - unit);
      }
    }
  }
}

TEST_CASE("Streams run work at once, events tell the time, graphs repeat work") {
  CpuBackend backend({}, {.threads = 1, .capacity_bytes = std::nullopt, .isa = std::nullopt});
  const std::unique_ptr<Stream> stream = backend.make_stream();
  const std::unique_ptr<Event> start = backend.make_event();
  const std::unique_ptr<Event> end = backend.make_event();
  stream->record(*start);
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  stream->record(*end);
  CHECK(end->done());
  CHECK(end->seconds_since(*start) >= 0.002);
  CHECK(end->seconds_since(*start) < 1.0);

  int runs = 0;
  const std::unique_ptr<Graph> graph = backend.capture(*stream, [&] { ++runs; });
  CHECK(runs == 0);
  graph->launch(*stream);
  graph->launch(*stream);
  CHECK(runs == 2);

  std::vector<int> from = {1, 2, 3}, to(3, 0);
  backend.copy_to_device(to.data(), from.data(), 3 * sizeof(int), *stream);
  CHECK(to == from);
  backend.fill_zero(to.data(), 2 * sizeof(int), *stream);
  CHECK(to == std::vector<int>{0, 0, 3});
}

TEST_CASE("Backends are made by the name of their device") {
  const std::unique_ptr<Backend> backend = make_backend(parse_device("cpu:1=64MiB"), 3);
  CHECK(backend->device() == DeviceId{DeviceKind::kCpu, 1});
  CHECK(backend->memory().capacity_bytes() == 64 * kMiB);
  CHECK_THAT(backend->description(), ContainsText("cpu:1, 3 threads"));
  CHECK_THROWS_AS(make_backend(parse_device("cuda:97")), Error);
  const std::vector<DeviceInfo> devices = list_devices();
  REQUIRE(!devices.empty());
  CHECK(devices.back().id == DeviceId{});
  CHECK(devices.back().capacity_bytes > 0);
  CHECK(list_device_ids().size() == devices.size());
  const DeviceId asked[] = {{DeviceKind::kCuda, 97}, DeviceId{}};
  const std::vector<DeviceInfo> described = describe_devices(asked);
  REQUIRE(described.size() == 1);
  CHECK(described.front().id == DeviceId{});
  CHECK_THROWS_AS(backend->memory().allocate(65 * kMiB, "too much"), MemoryError);
}

}  // namespace
}  // namespace tandem
