#include "model/transformer.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "model/model_loader.h"
#include "model/token_scores.h"
#include "support/catch.h"
#include "support/model_runner.h"
#include "tandem/error.h"

namespace tandem {
namespace {

const std::filesystem::path kSource = TANDEM_SOURCE_DIR;

std::unique_ptr<Backend> cpu() { return make_backend(parse_device("cpu"), 2); }

nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  REQUIRE(file.good());
  return nlohmann::json::parse(file);
}

/// Compares a model with what another implementation computed in float64 on the same weights.
struct Agreement {
  double largest_difference = 0;  ///< of top logits and logsumexp
  int top_disagreements = 0;      ///< where the reference's lead exceeds the tolerance
  int positions = 0;
};

Agreement compare(LanguageModel& model, const nlohmann::json& reference, double tolerance) {
  Agreement result;
  const auto ids = reference["ids"].get<std::vector<int32_t>>();
  const TokenScores all = score_tokens(model, ids, model.vocab_size());
  for (size_t i = 0; i < ids.size(); ++i, ++result.positions) {
    std::vector<float> by_id(all.top_ids[i].size());
    for (size_t k = 0; k < by_id.size(); ++k)
      by_id[static_cast<size_t>(all.top_ids[i][k])] = all.top_logits[i][k];
    const auto& top_ids = reference["top_ids"][i];
    const auto& top_logits = reference["top_logits"][i];
    for (size_t k = 0; k < top_ids.size(); ++k) {
      const double difference =
          std::abs(by_id[top_ids[k].get<size_t>()] - top_logits[k].get<double>());
      result.largest_difference = std::max(result.largest_difference, difference);
    }
    const double difference = std::abs(all.logsumexp[i] - reference["logsumexp"][i].get<double>());
    result.largest_difference = std::max(result.largest_difference, difference);
    const double lead = top_logits[0].get<double>() - top_logits[1].get<double>();
    if (lead > tolerance && all.top_ids[i][0] != top_ids[0].get<int32_t>())
      ++result.top_disagreements;
  }
  return result;
}

TEST_CASE("The demonstration models give the reference's logits and greedy text") {
  constexpr double kTolerance = 5e-4;
  const nlohmann::json reference = read_json(kSource / "tests/data/demo_reference.json");
  const std::string name = GENERATE("main", "draft");
  const std::unique_ptr<Backend> backend = cpu();
  const auto model =
      load_model(kSource / "models/demo" / name, *backend, {.max_positions = 512, .max_rows = 48});
  test::ModelRunner runner(*model);
  for (const nlohmann::json& prompt : reference[name]) {
    const Agreement agreement = compare(*model, prompt, kTolerance);
    CAPTURE(name, agreement.largest_difference, agreement.positions);
    CHECK(agreement.largest_difference <= kTolerance);
    CHECK(agreement.top_disagreements == 0);
  }
}

}  // namespace
}  // namespace tandem
