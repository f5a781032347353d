#include "backend/cuda_devices.h"
#include "kernel_bench.h"

namespace tandem::bench {

/// Wide passes against the matrix rate, and each product beside cuBLASLt on plain matrices.
void measure_prefill(const ModelShape& shape, WeightFormat format, double matrix_rate,
                     Backend& backend, Report& report) {
  constexpr int kMostRows = 2048, kFirstSlot = 0;
  const auto stream = backend.make_stream();
  Model model(shape, format, kMostRows, kFirstSlot, backend, *stream);
  const std::string name = std::string(shape.name) + " " + std::string(name_of(format));
  const int64_t query = int64_t{shape.heads} * shape.head_dim;
  const int64_t qkv = query + 2 * int64_t{shape.kv_heads} * shape.head_dim;
  const int64_t outputs[] = {qkv, shape.hidden, 2 * int64_t{shape.mlp}, shape.hidden};
  const int64_t inputs[] = {shape.hidden, query, shape.hidden, shape.mlp};
  const auto operations = [&](int part, int rows) {
    return 2.0 * rows * static_cast<double>(outputs[part]) * static_cast<double>(inputs[part]);
  };
  for (const int rows : {17, 64, 128, 192, 256, 512, 1024, kMostRows}) {
    double products = 0;
    for (int part = 0; part < 4; ++part) products += operations(part, rows);
    products *= static_cast<double>(model.layers());
    for (const bool products_alone : {true, false}) {
      const double seconds =
          graph_seconds(backend, *stream, [&] { model.layers_step(rows, products_alone); });
      report.line_of_operations(name + (products_alone ? " prefill products" : " prefill"), rows,
                                seconds, products, matrix_rate);
    }
  }
  const auto each = [&](const std::function<void(size_t)>& work) {
    const double seconds = graph_seconds(backend, *stream, [&] {
      for (size_t layer = 0; layer < model.layers(); ++layer) work(layer);
    });
    return seconds / static_cast<double>(model.layers());
  };
  const char* parts[] = {"qkv", "output", "gate_up", "down"};
  for (int part = 0; part < 4; ++part) {
    report.line_of_operations(name + " prefill " + parts[part], kMostRows,
                              each([&](size_t layer) { model.product(layer, part, kMostRows); }),
                              operations(part, kMostRows), matrix_rate);
    report.line_of_operations(
        name + " cuBLASLt " + parts[part], kMostRows,
        measure_library_product(backend.device(), kMostRows, outputs[part], inputs[part]),
        operations(part, kMostRows), matrix_rate);
  }
  report.line(name + " prefill norm", kMostRows, each([&](size_t) { model.norm(kMostRows); }),
              6.0 * kMostRows * shape.hidden);
  const double attention = 2.0 * kMostRows * kMostRows * static_cast<double>(query);  // causal
  report.line(name + " prefill rope", kMostRows, each([&](size_t) { model.rotate(kMostRows); }),
              4.0 * kMostRows * static_cast<double>(qkv));
  report.line_of_operations(name + " prefill attention", kMostRows,
                            each([&](size_t) { model.mix(kMostRows); }), attention, matrix_rate);
}

}  // namespace tandem::bench
