// Whole models on the GPU: against another implementation's logits, against the CPU's, and against
// themselves in passes of other widths.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "model/model_loader.h"
#include "ops/op_runner.h"
#include "support/catch.h"
#include "support/model_folder.h"
#include "support/model_runner.h"

namespace tandem {
namespace {

using test::cpu_device;
using test::cuda_device;
using test::has_gpu;
using Json = nlohmann::json;

/// What two-byte activations and cache may change of a logit of the demonstration pair.
constexpr double kLargestDifference = 0.3, kLargestRms = 0.04;

std::filesystem::path folder_of(const std::string& model) {
  return model == "main" ? testing::demo_main() : testing::demo_draft();
}

Json reference_of(const std::string& model) {
  std::ifstream file(std::string(TANDEM_SOURCE_DIR) + "/tests/data/demo_reference.json");
  const Json all = Json::parse(file);
  REQUIRE(all[model].size() >= 6);
  return all[model];
}

std::unique_ptr<Transformer> load(const Checkpoint& checkpoint, Backend& backend,
                                  Quantization quantization, int max_rows) {
  LoadOptions options;
  options.max_positions = 256;
  options.max_rows = max_rows;
  options.quantization = quantization;
  return load_model(checkpoint, backend, options);
}

/// Differences of logits, gathered.
struct Differences {
  double largest = 0;
  double squares = 0;
  int64_t count = 0;

  void see(float ours, double theirs) {
    const double difference = std::abs(static_cast<double>(ours) - theirs);
    if (!(difference <= largest)) largest = difference;  // a NaN must not slip through
    squares += difference * difference;
    ++count;
  }
  double rms() const {
    return std::sqrt(squares / static_cast<double>(std::max<int64_t>(count, 1)));
  }
};

/// Logits after every token, in passes of at most the model's rows.
std::vector<float> all_logits(LanguageModel& model, const std::vector<int32_t>& ids) {
  test::ModelRunner runner(model);
  std::vector<float> logits;
  const auto widest = static_cast<size_t>(model.max_rows());
  for (size_t first = 0; first < ids.size(); first += widest) {
    const size_t rows = std::min(widest, ids.size() - first);
    const std::vector<float> some =
        runner.run(std::span(ids).subspan(first, rows), static_cast<int>(first));
    logits.insert(logits.end(), some.begin(), some.end());
  }
  return logits;
}

struct TopTwo {
  int32_t first = 0;
  double lead = 0;
};
TopTwo top_two(std::span<const float> logits) {
  const int32_t first = test::argmax(logits);
  float second = -INFINITY;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (static_cast<int32_t>(id) != first) second = std::max(second, logits[id]);
  }
  return {first, static_cast<double>(logits[static_cast<size_t>(first)] - second)};
}

/// The ids of the eight largest, as many as the reference tells.
std::vector<size_t> likeliest(std::span<const float> logits) {
  constexpr size_t kTop = 8;
  std::vector<size_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), size_t{0});
  std::partial_sort(ids.begin(), ids.begin() + kTop, ids.end(),
                    [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  ids.resize(kTop);
  return ids;
}

TEST_CASE("The demonstration pair's logits on the GPU are the reference's", "[cuda]") {
  if (!has_gpu()) return;
  const std::string model = GENERATE("main", "draft");
  const int max_rows = GENERATE(16, 128);  // the kernels of decoding, and of prefill
  CAPTURE(model, max_rows);
  const auto backend = make_backend(cuda_device());
  const auto loaded = load(folder_of(model), *backend, Quantization::kNone, max_rows);
  const auto vocab = static_cast<size_t>(loaded->vocab_size());
  Differences differences;
  int compared = 0, others = 0;
  for (const Json& prompt : reference_of(model)) {
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    const std::vector<float> logits = all_logits(*loaded, ids);
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::span<const float> row = std::span(logits).subspan(i * vocab, vocab);
      const auto top_ids = prompt["top_ids"][i].get<std::vector<size_t>>();
      const auto top = prompt["top_logits"][i].get<std::vector<double>>();
      for (size_t rank = 0; rank < top.size(); ++rank)
        differences.see(row[top_ids[rank]], top[rank]);
      if (top[0] - top[1] <= kLargestDifference) continue;
      ++compared;
      if (test::argmax(row) != static_cast<int32_t>(top_ids[0])) ++others;
    }
  }
  WARN(model << ", passes of up to " << max_rows << " rows: largest difference "
             << differences.largest << ", rms " << differences.rms() << ", " << compared
             << " leads above the tolerance");
  CHECK(differences.largest <= kLargestDifference);
  CHECK(differences.rms() <= kLargestRms);
  CHECK(compared > 100);
  CHECK(others == 0);
}

TEST_CASE("Along the reference's own text the GPU chooses its tokens", "[cuda]") {
  if (!has_gpu()) return;
  const std::string model = GENERATE("main", "draft");
  CAPTURE(model);
  const auto gpu = make_backend(cuda_device()), cpu = make_backend(cpu_device());
  const auto on_gpu = load(folder_of(model), *gpu, Quantization::kNone, 16);
  const auto on_cpu = load(folder_of(model), *cpu, Quantization::kNone, 128);
  const auto vocab = static_cast<size_t>(on_gpu->vocab_size());
  int compared = 0, others = 0;
  for (const Json& prompt : reference_of(model)) {
    auto ids = prompt["ids"].get<std::vector<int32_t>>();
    const auto greedy = prompt["greedy"].get<std::vector<int32_t>>();
    const size_t first = ids.size() - 1;
    ids.insert(ids.end(), greedy.begin(), greedy.end() - 1);
    const std::vector<float> ours = all_logits(*on_gpu, ids), leads = all_logits(*on_cpu, ids);
    for (size_t i = 0; i < greedy.size(); ++i) {
      const size_t at = (first + i) * vocab;
      // The CPU, whose text is the reference's, says how far it leads.
      const TopTwo wanted = top_two(std::span(leads).subspan(at, vocab));
      REQUIRE(wanted.first == greedy[i]);
      if (wanted.lead <= kLargestDifference) continue;
      ++compared;
      if (test::argmax(std::span(ours).subspan(at, vocab)) != greedy[i]) ++others;
    }
  }
  CHECK(compared > 300);
  CHECK(others == 0);
}

TEST_CASE("Quantised models have the CPU's logits on the GPU", "[cuda]") {
  if (!has_gpu()) return;
  const std::string model = GENERATE("main", "draft");
  const Quantization quantization = GENERATE(Quantization::kFp8, Quantization::kInt4);
  CAPTURE(model, static_cast<int>(quantization));
  const auto gpu = make_backend(cuda_device()), cpu = make_backend(cpu_device());
  const auto on_gpu = load(folder_of(model), *gpu, quantization, 16);
  const auto on_cpu = load(folder_of(model), *cpu, quantization, 128);
  Differences differences;
  for (const Json& prompt : reference_of(model)) {
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    const std::vector<float> ours = all_logits(*on_gpu, ids), theirs = all_logits(*on_cpu, ids);
    REQUIRE(ours.size() == theirs.size());
    const auto vocab = static_cast<size_t>(on_cpu->vocab_size());
    for (size_t row = 0; row < ids.size(); ++row) {
      for (const size_t id : likeliest(std::span(theirs).subspan(row * vocab, vocab))) {
        differences.see(ours[row * vocab + id], static_cast<double>(theirs[row * vocab + id]));
      }
    }
  }
  CHECK(differences.largest <= kLargestDifference);
  CHECK(differences.rms() <= kLargestRms);
}

TEST_CASE("A row of a whole forward has the same bits at every width on the GPU", "[cuda]") {
  if (!has_gpu()) return;
  const Checkpoint checkpoint =
      GENERATE(Checkpoint(testing::demo_main()), Checkpoint(testing::demo_draft()),
               Checkpoint(testing::demo_draft(), "1B"));
  const Quantization quantization =
      GENERATE(Quantization::kNone, Quantization::kFp8, Quantization::kInt4);
  CAPTURE(checkpoint.folder, checkpoint.expand, static_cast<int>(quantization));
  const auto backend = make_backend(cuda_device());
  const auto model = load(checkpoint, *backend, quantization, 128);
  test::ModelRunner runner(*model);
  const auto text = reference_of("main")[4]["ids"].get<std::vector<int32_t>>();
  constexpr int kWidest = 16, kContext = 60;
  REQUIRE(text.size() >= kContext + kWidest);
  runner.run(std::span(text).first(kContext), 0);
  const auto rows = std::span(text).subspan(kContext, kWidest);
  const std::vector<float> together = runner.run(rows, kContext);
  const auto vocab = static_cast<size_t>(model->vocab_size());
  for (int width = 1; width < kWidest; ++width) {
    CAPTURE(width);
    for (int first = 0; first < kWidest; first += width) {
      const auto count = static_cast<size_t>(std::min(width, kWidest - first));
      const std::vector<float> some =
          runner.run(rows.subspan(static_cast<size_t>(first), count), kContext + first);
      REQUIRE(some.size() == count * vocab);
      REQUIRE(std::memcmp(some.data(), together.data() + static_cast<size_t>(first) * vocab,
                          some.size() * sizeof(float)) == 0);
    }
  }
}

}  // namespace
}  // namespace tandem
