#include <algorithm>
#include <atomic>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/end_guard.h"
#include "cli/generate_options.h"
#include "cli/generate_output.h"
#include "cli/interrupt.h"
#include "cli/progress_bar.h"
#include "engine/synthetic_check.h"
#include "tandem/engine.h"

namespace tandem::cli {
namespace {

/// Enough to touch every weight of both models and to start the threads.
constexpr int kWarmUpTokens = 16;

class Generation {
 public:
  explicit Generation(const GenerateOptions& options) : options_(options) {}

  int run() {
    processes_ = options_.processes.join();
    if (processes_ == nullptr) return generate();
    guard_.emplace(*processes_);
    try {
      return rank_of(*processes_) == 0 ? generate() : serve();
    } catch (const std::exception& error) {
      // While the engine is still there: its end would look like a good one to the others.
      abort_processes(*processes_, error.what());
      throw;
    }
  }

 private:
  /// Rank 0 ends the text after Ctrl-C, which the terminal tells all processes.
  int serve() {
    const InterruptWatch watch([] {});
    EngineOptions options;
    options.processes = processes_;
    serve_engine(options_.make_config(), options);
    return static_cast<int>(ExitCode::kOk);
  }

  int generate() {
    const Config config = options_.make_config();
    request_.prompt = options_.read_prompt();
    request_.params = config.sampling;
    request_.n = options_.n;
    take_synthetic(config);
    check_output();
    load(config);
    if (options_.baseline) decode_plainly();
    const std::vector<Completion> completions = decode();
    if (options_.baseline && !interrupted_) comparison_ = compare(plain_, completions);
    report(config, completions);
    return static_cast<int>(interrupted_ ? ExitCode::kRuntime : ExitCode::kOk);
  }

  /// Before anything slow, as far as the configuration tells.
  void take_synthetic(const Config& config) {
    request_.synthetic_acceptance_rates = options_.synthetic.rates();
    const Config::Speculation& speculation = config.speculation;
    check_synthetic_acceptance(
        request_, speculation.method,
        speculation.num_speculative_tokens.value_or(speculation.max_speculative_tokens));
    if (!options_.synthetic.given()) return;
    print_warning("SYNTHETIC " + options_.synthetic.description() +
                  ": times are real, the text means nothing");
  }

  /// Before anything slow: a file that cannot be written should not cost a load. What it holds
  /// stays there until there is something to write.
  void check_output() const {
    if (!options_.output || can_write(*options_.output)) return;
    throw UsageError(*options_.output +
                     ": cannot be written; does the folder exist, and may you write there?");
  }

  void load(const Config& config) {
    LoadProgress progress;
    EngineOptions options;
    options.on_load = [&](std::string_view model, uint64_t done, uint64_t total) {
      progress.show(model, done, total);
    };
    const InterruptWatch watch([this] { interrupted_ = true; });
    options.cancelled = [this] { return interrupted_.load(); };
    options.processes = processes_;
    engine_ = Engine::from_config(config, options);
    for (const std::string& warning : engine_->info().warnings) print_warning(warning);
    if (options_.save_cost_table) save_costs(*options_.save_cost_table);
  }

  void save_costs(const std::string& path) const {
    const CostTable& costs = engine_->info().costs;
    if (costs.verify_seconds.empty()) {
      throw UsageError("--save-cost-table: nothing drafts, so there are no costs to write");
    }
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << costs.to_json();
    if (!file.flush()) {
      throw UsageError(path +
                       ": cannot be written; does the folder exist, and may you write there?");
    }
  }

  /// Submits and waits; Ctrl-C cancels.
  std::vector<Completion> wait_for(Request request) {
    std::mutex mutex;
    std::optional<RequestHandle> handle;
    // Watched from before the first text, or Ctrl-C in between would end the process.
    const InterruptWatch watch([&] {
      const std::lock_guard lock(mutex);
      interrupted_ = true;
      if (handle) handle->cancel();
    });
    {
      const std::lock_guard lock(mutex);
      handle = engine_->submit(std::move(request));
      if (interrupted_) handle->cancel();
    }
    return handle->wait();
  }

  void decode_plainly() {
    Request plain = request_;
    plain.num_speculative_tokens = 0;
    plain.synthetic_acceptance_rates.clear();
    if (options_.synthetic.given()) plain.params.ignore_eos = true;  // as many tokens
    for (Request warm_up : {request_, plain}) {
      warm_up.n = 1;
      warm_up.params.max_tokens = std::min(warm_up.params.max_tokens, kWarmUpTokens);
      if (!interrupted_) wait_for(std::move(warm_up));
    }
    if (interrupted_) return;
    plain_ = wait_for(plain);
    request_.params.seed = plain_.front().seed;  // where none was given: compare the same text
  }

  std::vector<Completion> decode() {
    if (interrupted_) throw Error("interrupted before the pair began to generate");
    Request request = request_;
    std::optional<TextPrinter> printer;
    const auto text = [&]() -> TextPrinter& {
      if (printer) return *printer;
      const bool color = options_.color && !options_.output && stdout_is_terminal();
      return printer.emplace(out(), color, request_.n);
    };
    if (!options_.json) request.on_text = [&](const TextPiece& piece) { text().print(piece); };
    std::vector<Completion> completions = wait_for(std::move(request));
    if (!options_.json) text().finish(!options_.output && stdout_is_terminal());
    return completions;
  }

  void report(const Config& config, const std::vector<Completion>& completions) {
    if (options_.json) {
      const std::vector<MemoryUse> memory = engine_->stats().memory;
      for (const Completion& completion : completions) {
        out() << completion_json(completion, memory, request_.params.logprobs >= 0, comparison_,
                                 options_.synthetic.description())
              << "\n";
      }
    } else {
      const bool text_is_fixed =
          !options_.synthetic.given() && (config.sampling.temperature == 0.0f ||
                                          config.speculation.rejection_sample_method == "coupled");
      print_summary(std::cerr, completions, engine_->info(), comparison_, text_is_fixed,
                    options_.synthetic.description());
    }
    out().flush();
    if (!out())
      throw Error((options_.output ? *options_.output : "standard output") + ": writing failed");
  }

  std::ostream& out() {
    if (!options_.output) return std::cout;
    if (!file_.is_open()) file_.open(*options_.output, std::ios::binary | std::ios::trunc);
    return file_;
  }

  const GenerateOptions& options_;
  Request request_;
  std::ofstream file_;
  std::shared_ptr<ProcessGroup> processes_;
  std::optional<EndGuard> guard_;
  std::unique_ptr<Engine> engine_;
  std::vector<Completion> plain_;
  std::optional<Comparison> comparison_;
  std::atomic<bool> interrupted_ = false;
};

}  // namespace

void add_generate(CLI::App& app, Command& command) {
  const auto options = std::make_shared<GenerateOptions>();
  CLI::App* const sub = app.add_subcommand("generate", "Continue a prompt");
  options->add_to(*sub);
  sub->footer(
      "Text streams to standard output, a summary goes to standard error. Ctrl-C ends the text "
      "early (exit\n"
      "code 1) and still prints what there is.\n"
      "Examples:\n"
      "  tandem generate --config configs/demo.json --prompt 'def add(a, b):' --baseline\n"
      "  tandem generate --main models/demo/main --draft models/demo/draft --prompt-file story.txt "
      "\\\n"
      "    --temperature 0.8 --seed 1 --n 3 --json\n"
      "  tandem generate --main models/demo/main --method ngram --prompt 'x = [1, 2, 3' --stop "
      "']'\n"
      "  torchrun --nproc-per-node 2 --no-python tandem generate --config pair.json --prompt TEXT\n"
      "(one process for each GPU: docs/processes.md)");
  sub->callback(
      [options, &command] { command = [options] { return Generation(*options).run(); }; });
}

}  // namespace tandem::cli
