#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "model/model_loader.h"
#include "model/token_scores.h"
#include "support/catch.h"
#include "support/model_runner.h"

// Against logits that another implementation computed in float64 on the same weights.

namespace tandem {
namespace {

using Json = nlohmann::json;

const std::filesystem::path kSource = TANDEM_SOURCE_DIR;

/// What the project promises for its demonstration pair.
constexpr double kTolerance = 5e-4;

Json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  INFO(path);
  REQUIRE(file.good());
  return Json::parse(file);
}

struct Agreement {
  double largest_difference = 0;  ///< of the reference's top logits and logsumexp
  int top_disagreements = 0;      ///< where the reference's lead exceeds the tolerance
};

Agreement compare(LanguageModel& model, const Json& reference) {
  Agreement result;
  const auto ids = reference["ids"].get<std::vector<int32_t>>();
  const TokenScores all = score_tokens(model, ids, model.vocab_size());
  REQUIRE(reference["top_ids"].size() == ids.size());
  const auto see = [&](double ours, double theirs) {
    // A NaN must not slip through a comparison.
    const double difference = std::abs(ours - theirs);
    if (!(difference <= result.largest_difference)) result.largest_difference = difference;
  };
  for (size_t i = 0; i < ids.size(); ++i) {
    std::vector<float> by_id(all.top_ids[i].size());
    for (size_t k = 0; k < by_id.size(); ++k) {
      by_id[static_cast<size_t>(all.top_ids[i][k])] = all.top_logits[i][k];
    }
    const Json& top_ids = reference["top_ids"][i];
    const Json& top_logits = reference["top_logits"][i];
    for (size_t k = 0; k < top_ids.size(); ++k)
      see(by_id.at(top_ids[k].get<size_t>()), top_logits[k].get<double>());
    see(all.logsumexp[i], reference["logsumexp"][i].get<double>());
    const double lead = top_logits[0].get<double>() - top_logits[1].get<double>();
    if (lead > kTolerance && all.top_ids[i][0] != top_ids[0].get<int32_t>())
      ++result.top_disagreements;
  }
  return result;
}

TEST_CASE("The demonstration models give the reference's logits and greedy text") {
  const Json reference = read_json(kSource / "tests/data/demo_reference.json");
  const std::string name = GENERATE("main", "draft");
  const std::unique_ptr<Backend> backend = make_backend(parse_device("cpu"), 2);
  LoadOptions options;
  options.max_positions = 512;
  options.max_rows = 128;
  options.max_logits_rows = 16;
  const auto model = load_model(kSource / "models/demo" / name, *backend, options);
  options.max_logits_rows = 0;
  const auto wide = load_model(kSource / "models/demo" / name, *backend, options);
  test::ModelRunner runner(*wide);
  REQUIRE(reference[name].size() >= 6);
  for (const Json& prompt : reference[name]) {
    const Agreement agreement = compare(*model, prompt);
    CAPTURE(name, agreement.largest_difference);
    CHECK(agreement.largest_difference <= kTolerance);
    CHECK(agreement.top_disagreements == 0);
    const auto expected = prompt["greedy"].get<std::vector<int32_t>>();
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    CHECK(runner.greedy(ids, static_cast<int>(expected.size())) == expected);
  }
}

TEST_CASE("Every family gives the logits that Hugging Face transformers computes") {
  int checkpoints = 0;
  for (const auto& folder : std::filesystem::directory_iterator(kSource / "tests/data/families")) {
    const std::unique_ptr<Backend> backend = make_backend(parse_device("cpu"), 1);
    LoadOptions options;
    options.max_rows = GENERATE(1, 40);
    const auto model = load_model(folder.path(), *backend, options);
    const Agreement agreement = compare(*model, read_json(folder.path() / "reference.json"));
    CAPTURE(folder.path().filename(), agreement.largest_difference);
    CHECK(agreement.largest_difference <= kTolerance);
    CHECK(agreement.top_disagreements == 0);
    ++checkpoints;
  }
  CHECK(checkpoints >= 9);
}

}  // namespace
}  // namespace tandem
