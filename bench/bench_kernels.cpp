// Time, bytes or operations, and share of what the GPU can do, of the ops on the shapes of models
// of 1B and 8B: each alone and as whole passes captured in one graph. Weights are random; shares
// are of the read bandwidth or the matrix rate measured in the same run; times are medians.

#include <CLI/CLI.hpp>

#include "backend/cuda_devices.h"
#include "kernel_bench.h"
#include "tandem/error.h"

namespace {

using namespace tandem;
using namespace tandem::bench;

struct Options {
  std::vector<std::string> sections = {"decode", "prefill", "round"};
  std::vector<std::string> shapes = {"1B", "8B"};
  std::vector<std::string> formats = {"bfloat16", "fp8_e4m3", "int4_group128"};
  std::string json;

  static bool has(const std::vector<std::string>& list, std::string_view name) {
    return std::find(list.begin(), list.end(), name) != list.end();
  }
};

/// Operations a second of a large bfloat16 product.
double measure_matrix_rate(DeviceId device) {
  constexpr int64_t kSize = 8192;
  constexpr auto kEdge = static_cast<double>(kSize);
  return 2 * kEdge * kEdge * kEdge / measure_library_product(device, kSize, kSize, kSize);
}

void run(const Options& options) {
  const DeviceId device{DeviceKind::kCuda, 0};
  const double bandwidth = measure_read_bandwidth(device);
  const double matrix_rate = measure_matrix_rate(device);
  const auto backend = make_backend({.id = device, .capacity_bytes = std::nullopt});
  std::printf("%s, reads %.3f TB/s, multiplies %.0f TFLOP/s\n", backend->description().c_str(),
              bandwidth * 1e-12, matrix_rate * 1e-12);
  Report report(bandwidth, options.json.empty() ? nullptr : options.json.c_str());
  for (const ModelShape& shape : kShapes) {
    if (!Options::has(options.shapes, shape.name)) continue;
    for (const WeightFormat format : {WeightFormat::kBF16, WeightFormat::kF16,
                                      WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128}) {
      if (!Options::has(options.formats, name_of(format))) continue;
      if (Options::has(options.sections, "decode")) measure_decode(shape, format, *backend, report);
      if (Options::has(options.sections, "prefill")) {
        measure_prefill(shape, format, matrix_rate, *backend, report);
      }
    }
  }
  if (Options::has(options.sections, "round")) measure_round(*backend, report);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Times the GPU's ops on the shapes of models of 1B and 8B");
  app.add_option("--sections", options.sections, "What to time: decode, prefill, round")
      ->delimiter(',')
      ->check(CLI::IsMember({"decode", "prefill", "round"}));
  app.add_option("--shapes", options.shapes, "Model shapes: 1B, 8B")
      ->delimiter(',')
      ->check(CLI::IsMember({"1B", "8B"}));
  app.add_option("--formats", options.formats,
                 "Weight formats: bfloat16, float16, fp8_e4m3, int4_group128")
      ->delimiter(',')
      ->check(CLI::IsMember({"bfloat16", "float16", "fp8_e4m3", "int4_group128"}));
  app.add_option("--json", options.json, "Also write a line of JSON for every figure to this file");
  CLI11_PARSE(app, argc, argv);
  try {
    run(options);
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "bench_kernels: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
