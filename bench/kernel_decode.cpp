#include "backend/cuda_devices.h"
#include "kernel_bench.h"

namespace tandem::bench {

void measure_decode(const ModelShape& shape, WeightFormat format, Backend& backend,
                    Report& report) {
  constexpr int kMostRows = 16, kContext = 512;
  const auto stream = backend.make_stream();
  Model model(shape, format, kMostRows, kContext, backend, *stream);
  const std::string name = std::string(shape.name) + " " + std::string(name_of(format));
  for (const int rows : {1, 2, 4, 8, kMostRows}) {
    for (const bool products_alone : {true, false}) {
      const double seconds =
          graph_seconds(backend, *stream, [&] { model.step(rows, products_alone); });
      report.line(name + (products_alone ? " products" : " step"), rows, seconds,
                  model.weight_bytes());
    }
  }
  // Each op over all layers in turn, so that no cache holds its weights.
  const auto each = [&](const char* op, int rows, double bytes,
                        const std::function<void(size_t)>& work) {
    const double seconds = graph_seconds(backend, *stream, [&] {
      for (size_t layer = 0; layer < model.layers(); ++layer) work(layer);
    });
    report.line(name + " " + op, rows, seconds / static_cast<double>(model.layers()), bytes);
  };
  const int64_t query = int64_t{shape.heads} * shape.head_dim;
  const int64_t key_value = int64_t{shape.kv_heads} * shape.head_dim;
  const int64_t outputs[] = {query + 2 * key_value, shape.hidden, 2 * int64_t{shape.mlp},
                             shape.hidden};
  const int64_t inputs[] = {shape.hidden, query, shape.hidden, shape.mlp};
  // The same product of plain matrices by the library; it has no norm, no gate and no residual.
  const auto library = [&](const char* op, int rows, int64_t out, int64_t in) {
    if (format != WeightFormat::kBF16) return;
    const double bytes = 2.0 * static_cast<double>(out) * static_cast<double>(in);
    report.line(name + " " + op + " (cuBLASLt)", rows,
                measure_library_product(backend.device(), rows, out, in), bytes);
  };
  for (const int rows : {1, 4, 8, kMostRows}) {
    const char* parts[] = {"qkv", "output", "gate_up", "down"};
    for (int part = 0; part < 4; ++part) {
      each(parts[part], rows, model.bytes_of(part),
           [&](size_t layer) { model.product(layer, part, rows); });
      library(parts[part], rows, outputs[part], inputs[part]);
    }
    const double seconds = graph_seconds(backend, *stream, [&] { model.head(rows); });
    report.line(name + " head", rows, seconds, model.head_bytes());
    library("head", rows, shape.vocab, shape.hidden);
    each("norm", rows, 0, [&](size_t) { model.norm(rows); });
    each("rope and attention", rows, model.cache_bytes(), [&](size_t) { model.attend(rows); });
  }
}

}  // namespace tandem::bench
