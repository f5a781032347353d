#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/progress_bar.h"
#include "model/model_loader.h"
#include "model/token_scores.h"

namespace tandem::cli {
namespace {

/// Rows of one pass: enough to read the weights rarely, few enough that their logits stay small.
constexpr int kRowsPerPass = 16;
constexpr int kDefaultTop = 8;

struct LogitsOptions {
  std::string model;
  std::string quantization = "none";
  std::string expand = "none";
  std::string ids;
  int top = kDefaultTop;
  std::string device = "auto";
  int threads = 0;
  bool json = false;
};

void print_json(const TokenScores& scores) {
  nlohmann::ordered_json document;
  document["top_ids"] = scores.top_ids;
  document["top_logits"] = scores.top_logits;
  document["logsumexp"] = scores.logsumexp;
  std::cout << document.dump() << "\n";
}

void print_table(const std::vector<int32_t>& ids, const TokenScores& scores) {
  std::printf("%8s %8s %12s  %s\n", "position", "id", "logsumexp", "likeliest next ids: logits");
  for (size_t i = 0; i < ids.size(); ++i) {
    std::printf("%8zu %8d %12.5f ", i, ids[i], static_cast<double>(scores.logsumexp[i]));
    for (size_t rank = 0; rank < scores.top_ids[i].size(); ++rank) {
      std::printf(" %d: %.5f", scores.top_ids[i][rank],
                  static_cast<double>(scores.top_logits[i][rank]));
    }
    std::printf("\n");
  }
  std::fflush(stdout);
}

int logits(const LogitsOptions& options) {
  const std::vector<int32_t> ids = parse_ids(options.ids, "--ids");
  const DeviceSpec device = options.device == "auto" ? DeviceSpec{list_device_ids().front(), {}}
                                                     : parse_device(options.device);
  const std::unique_ptr<Backend> backend = make_backend(device, options.threads);
  LoadProgress progress;
  LoadOptions load;
  load.max_positions = std::max(1, static_cast<int>(ids.size()));
  load.max_rows = kRowsPerPass;
  load.quantization = parse_quantization(options.quantization);
  load.progress = [&](uint64_t done, uint64_t total) { progress.show("main", done, total); };
  const std::unique_ptr<Transformer> model =
      load_model({options.model, options.expand}, *backend, load);
  const TokenScores scores = score_tokens(*model, ids, options.top);
  if (options.json) {
    print_json(scores);
  } else {
    print_table(ids, scores);
  }
  return 0;
}

}  // namespace

void add_logits(CLI::App& app, Command& command) {
  const auto options = std::make_shared<LogitsOptions>();
  CLI::App* const sub = app.add_subcommand(
      "logits", "Print what a model says after each of a list of token ids; needs no tokenizer");
  sub->add_option("--model", options->model, "Model folder")->required()->type_name("DIR");
  sub->add_option("--ids", options->ids, "Token ids, separated by commas")
      ->required()
      ->type_name("ID,ID...");
  sub->add_option("--top", options->top,
                  "How many of the largest logits to print for each position")
      ->capture_default_str()
      ->type_name("N");
  sub->add_option("--quantization", options->quantization,
                  "Convert matrices while loading: none, fp8 or int4")
      ->capture_default_str()
      ->type_name("Q");
  sub->add_option("--expand", options->expand,
                  "Run the model's function in the shape of a 1B, 8B or 70B")
      ->capture_default_str()
      ->type_name("SIZE");
  sub->add_option("--device", options->device, "Device to run on")
      ->capture_default_str()
      ->type_name("D");
  sub->add_option("--threads", options->threads, "CPU threads; 0: every core")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N");
  sub->add_flag("--json", options->json,
                "Print one object: top_ids, top_logits, logsumexp, a row for each input position");
  sub->footer(
      "Examples:\n"
      "  tandem logits --model models/demo/main --ids 0,17,23\n"
      "  tandem logits --model models/demo/draft --ids 0,17,23 --top 3 --json");
  sub->callback([options, &command] { command = [options] { return logits(*options); }; });
}

}  // namespace tandem::cli
