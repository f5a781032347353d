#include <cuda_runtime_api.h>

#include <algorithm>
#include <random>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/library_matmul.h"
#include "backend/cuda_devices.h"

namespace tandem {
namespace {

constexpr size_t kElement = 2;

/// Fills memory with random bfloat16 numbers of magnitude 2^-7 ... 2^-4, a block of them repeated.
void fill_random(CudaBackend& backend, const DeviceBuffer& buffer, Stream& stream) {
  constexpr size_t kBlock = size_t{1} << 22;
  std::mt19937 generator(1);
  std::vector<uint16_t> block(std::min(kBlock, buffer.bytes() / kElement));
  for (uint16_t& bits : block) bits = static_cast<uint16_t>((generator() & 0x81ffu) | 0x3c00u);
  auto* const data = static_cast<std::byte*>(buffer.data());
  for (size_t done = 0; done < buffer.bytes(); done += block.size() * kElement) {
    const size_t bytes = std::min(block.size() * kElement, buffer.bytes() - done);
    backend.copy_to_device(data + done, block.data(), bytes, stream);
  }
  stream.synchronize();
}

}  // namespace

double measure_library_product(DeviceId device, int64_t rows, int64_t outputs, int64_t inputs) {
  constexpr size_t kBeyondCaches = size_t{256} << 20, kWorkspace = size_t{32} << 20;
  constexpr int kWarmUps = 1, kRepetitions = 5, kRuns = 8;
  const char* const purpose = "measuring the matrix rate";
  CudaBackend backend(device);
  const auto stream = backend.make_stream();
  const auto begin = backend.make_event(), end = backend.make_event();
  const auto bytes = [](int64_t count) { return static_cast<size_t>(count) * kElement; };
  const size_t weight_bytes = bytes(outputs * inputs);
  const size_t weights = kBeyondCaches / weight_bytes + 1;
  const DeviceBuffer all_weights(backend.memory(), weights * weight_bytes, purpose);
  const DeviceBuffer x(backend.memory(), bytes(rows * inputs), purpose);
  const DeviceBuffer out(backend.memory(), bytes(rows * outputs), purpose);
  const DeviceBuffer workspace(backend.memory(), kWorkspace, purpose);
  fill_random(backend, all_weights, *stream);
  fill_random(backend, x, *stream);
  LibraryMatmul library(device.index);
  std::vector<double> seconds;
  size_t next = 0;
  const auto run = [&] {
    const auto* const weight =
        static_cast<const std::byte*>(all_weights.data()) + next++ % weights * weight_bytes;
    library.run({.rows = rows, .outputs = outputs, .inputs = inputs, .out_stride = outputs},
                {.weight = weight,
                 .x = x.data(),
                 .out = out.data(),
                 .workspace = workspace.data(),
                 .workspace_bytes = kWorkspace},
                static_cast<CudaStream&>(*stream).handle());
  };
  for (int repetition = 0; repetition < kWarmUps + kRepetitions; ++repetition) {
    stream->record(*begin);
    for (int i = 0; i < kRuns; ++i) run();
    stream->record(*end);
    end->wait();
    if (repetition >= kWarmUps) seconds.push_back(end->seconds_since(*begin) / kRuns);
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRepetitions / 2, seconds.end());
  return seconds[kRepetitions / 2];
}

}  // namespace tandem
