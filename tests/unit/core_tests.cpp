#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/mapped_file.h"
#include "core/memory.h"
#include "core/philox.h"
#include "core/size.h"
#include "core/tensor_view.h"
#include "core/text.h"
#include "support/catch.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// Host memory with a capacity, counting what is out.
class CountingMemory : public MemoryResource {
 public:
  explicit CountingMemory(uint64_t capacity) : capacity_(capacity) {}
  void* allocate(size_t bytes, std::string_view purpose) override {
    if (allocated_ + bytes > capacity_)
      throw MemoryError("cpu:0: no room for " + std::string(purpose));
    allocated_ += bytes;
    return std::aligned_alloc(kDeviceAlignment, align_up(bytes, kDeviceAlignment));
  }
  void release(void* data, size_t bytes) noexcept override {
    allocated_ -= bytes;
    std::free(data);
  }
  DeviceId device() const override { return {}; }
  uint64_t capacity_bytes() const override { return capacity_; }
  uint64_t allocated_bytes() const override { return allocated_; }
  uint64_t free_bytes() const override { return capacity_ - allocated_; }

 private:
  uint64_t capacity_;
  uint64_t allocated_ = 0;
};

TEST_CASE("sizes are parsed in bytes and binary units only") {
  CHECK(parse_size("0") == 0);
  CHECK(parse_size("1048576") == kMiB);
  CHECK(parse_size("512MiB") == 512 * kMiB);
  CHECK(parse_size("1.5GiB") == kGiB + kGiB / 2);
  CHECK(parse_size("64 KiB") == 64 * kKiB);
  for (const char* bad : {"", "MiB", "12MB", "12 M", "-1", "1.5", "99999999999GiB",
                          "18446744073709551616", "1..5GiB", "1e9"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parse_size(bad), ConfigError);
  }
  CHECK(format_size(kGiB + kGiB / 2) == "1.50 GiB");
  CHECK(format_size(17) == "17 B");
}

TEST_CASE("devices are parsed and printed") {
  CHECK(parse_device("cpu").id == DeviceId{DeviceKind::kCpu, 0});
  CHECK(parse_device("cuda:3").id == DeviceId{DeviceKind::kCuda, 3});
  const DeviceSpec simulated = parse_device("cpu:1=64MiB");
  CHECK(simulated.id == DeviceId{DeviceKind::kCpu, 1});
  CHECK(simulated.capacity_bytes == 64 * kMiB);
  CHECK(to_string(simulated.id) == "cpu:1");
  CHECK(parse_device_list("cpu:0=1GiB, cpu:1=2GiB").size() == 2);
  for (const char* bad :
       {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:1=", "cuda:0=1GiB", "cpu:99999"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parse_device(bad), ConfigError);
  }
  CHECK_THROWS_AS(parse_device_list("cpu:0,cpu:0"), ConfigError);
  CHECK_THROWS_AS(parse_device_list("cpu:0,"), ConfigError);
}

TEST_CASE("a word resembles what it begins or nearly is") {
  CHECK(resembles("gen", "generate"));
  CHECK(resembles("genrate", "generate"));
  CHECK(resembles("plane", "plan"));
  CHECK_FALSE(resembles("gen", "plan"));
  CHECK_FALSE(resembles("run", "plan"));
  CHECK_FALSE(resembles("", "plan"));
}

TEST_CASE("the nearest word is found by beginning and edit distance") {
  const std::vector<std::string> words = {"temperature", "top_p", "top_k"};
  CHECK(nearest("temprature", words) == "temperature");
  CHECK(nearest("topp", words) == "top_p");
  CHECK(nearest("x", std::vector<std::string>{}).empty());
  const std::vector<std::string> commands = {"plan", "devices", "generate", "generator"};
  CHECK(nearest("gen", commands) == "generate");
  CHECK(nearest("generator", commands) == "generator");
  CHECK(nearest("genarate", commands) == "generate");
  CHECK(nearest("", commands) == "plan");
}

TEST_CASE("invalid UTF-8 is found at its offset") {
  CHECK_FALSE(find_invalid_utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"));
  const std::map<std::string, size_t> bad = {{"ab\x80", 2},           {"\xC0\xAF", 0},
                                             {"a\xE0\x80\xAF", 1},    {"\xED\xA0\x80", 0},
                                             {"\xF4\x90\x80\x80", 0}, {"x\xE2\x82", 1}};
  for (const auto& [text, offset] : bad) CHECK(find_invalid_utf8(text) == offset);
}

TEST_CASE("Philox4x32-10 gives the published known answers") {
  CHECK(philox4x32({0, 0, 0, 0}, 0) ==
        PhiloxCounter{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  CHECK(philox4x32({~0u, ~0u, ~0u, ~0u}, ~0ull) ==
        PhiloxCounter{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  CHECK(philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, 0x299f31d0a4093822ull) ==
        PhiloxCounter{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("uniform numbers and noise stay finite at both ends") {
  CHECK(uniform_open(0, 0) > 0.0);
  CHECK(uniform_open(~0u, ~0u) < 1.0);
  CHECK(uniform_open(1, 0) - uniform_open(0, ~0u) == Approx(0x1p-52).epsilon(1e-9));
  for (const uint32_t bits : {0u, 1u, 0x7fffffffu, ~0u - 1, ~0u})
    CHECK(std::isfinite(gumbel_noise(bits)));
  CHECK(gumbel_noise(0) > gumbel_noise(~0u));
  double sum = 0;
  constexpr int kDraws = 1 << 16;
  for (uint32_t i = 0; i < kDraws; ++i) sum += static_cast<double>(gumbel_noise(i << 16 | 0x8000u));
  constexpr double kEulerGamma = 0.5772156649;
  CHECK(sum / kDraws == Approx(kEulerGamma).margin(1e-3));
}

TEST_CASE("A draw reaches the rarest token of a large vocabulary") {
  constexpr uint32_t kTokens = 1u << 20;
  constexpr uint32_t kStep = UINT32_MAX / kTokens;
  double narrowest = 1;
  for (uint32_t i = 0; i + 1 < kTokens; i += 4096) {
    const double gap = uniform_open((i + 1) * kStep, 0) - uniform_open((i + 1) * kStep, 1u << 12);
    narrowest = std::min(narrowest, std::abs(gap));
  }
  CHECK(narrowest <= 0x1p-52);
  CHECK(narrowest > 0);
}

TEST_CASE("16-bit floats convert exactly") {
  CHECK(bf16_to_float(0x3f80) == 1.0f);
  CHECK(float_to_bf16(1.00390625f) == 0x3f80);  // halfway between two neighbours: to even
  CHECK(float_to_bf16(1.01171875f) == 0x3f82);
  CHECK(std::isnan(bf16_to_float(float_to_bf16(std::nanf("")))));
  CHECK(f16_to_float(0x3c00) == 1.0f);
  CHECK(f16_to_float(0xc000) == -2.0f);
  CHECK(f16_to_float(0x0001) == std::ldexp(1.0f, -24));
  CHECK(std::isinf(f16_to_float(0x7c00)));
}

TEST_CASE("views are checked when they are made") {
  std::array<float, 12> data{};
  const TensorView view(data.data(), DType::kF32, {3, 4}, {});
  CHECK(view.bytes() == 48);
  CHECK(view.rows(1, 2).as<float>() == data.data() + 4);
  CHECK(view.rows(3, 0).count() == 0);
  CHECK(view.reshaped({12}).dim(0) == 12);
  CHECK_THROWS_AS(view.rows(2, 2), ShapeError);
  CHECK_THROWS_AS(view.rows(-1, 1), ShapeError);
  CHECK_THROWS_AS(view.reshaped({5}), ShapeError);
  CHECK_THROWS_AS(TensorView(nullptr, DType::kF32, {1}, {}), ShapeError);
  CHECK_THROWS_AS(TensorView(data.data(), DType::kF32, {-1}, {}), ShapeError);
}

TEST_CASE("an arena hands out exactly what was planned") {
  CountingMemory memory(1 << 16);
  const uint64_t planned = ArenaSize().add(DType::kF32, {3, 5}).add(DType::kU8, {1}).bytes();
  CHECK(planned == 2 * kDeviceAlignment);
  {
    Arena arena(memory, planned, "test");
    const TensorView first = arena.take(DType::kF32, {3, 5});
    const TensorView second = arena.take(DType::kU8, {1});
    CHECK(second.as<std::byte>() - first.as<std::byte>() ==
          static_cast<ptrdiff_t>(kDeviceAlignment));
    CHECK(arena.used_bytes() == planned);
    CHECK_THROWS_AS(arena.take(DType::kU8, {1}), MemoryError);
    CHECK(memory.allocated_bytes() == planned);
    Arena moved = std::move(arena);
    CHECK(moved.bytes() == planned);
  }
  CHECK(memory.allocated_bytes() == 0);
  CHECK_THROWS_AS(Arena(memory, (1 << 16) + 1, "too much"), MemoryError);
}

TEST_CASE("files are mapped, and what cannot be is named") {
  const auto folder =
      std::filesystem::temp_directory_path() / ("tandem_core_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "data") << "hello";
  std::ofstream(folder / "empty").flush();
  {
    MappedFile file(folder / "data");
    CHECK(file.bytes().size() == 5);
    file.discard(0, 5);
    CHECK(static_cast<char>(file.bytes()[4]) == 'o');
    MappedFile moved = std::move(file);
    CHECK(moved.bytes().size() == 5);
  }
  CHECK(read_text_file(folder / "data") == "hello");
  CHECK_THROWS_AS(read_text_file(folder / "data", 4), ModelError);
  CHECK_THROWS_AS(read_text_file(folder / "missing"), ModelError);
  CHECK_THROWS_AS(MappedFile(folder / "missing"), ModelError);
  CHECK_THROWS_AS(MappedFile(folder / "empty"), ModelError);
  CHECK_THROWS_AS(MappedFile(folder), ModelError);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace tandem
