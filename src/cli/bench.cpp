#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "bench/journal.h"
#include "bench/report.h"
#include "bench/what_if.h"
#include "cli/bench_options.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/interrupt.h"
#include "cli/process_options.h"
#include "cli/progress_bar.h"
#include "tandem/engine.h"

namespace tandem::cli {
namespace {

namespace fs = std::filesystem;

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

/// Writes beside the file and renames: a report is there whole or not at all.
void write_file(const fs::path& path, const std::string& text) {
  const fs::path beside = path.string() + ".new";
  std::ofstream file(beside, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  std::error_code error;
  if (file) fs::rename(beside, path, error);
  if (!file || error) throw Error(path.string() + ": writing failed");
}

class Benchmark {
 public:
  explicit Benchmark(BenchOptions options) : options_(std::move(options)) {}

  int run() {
    pairs_ = options_.make_pairs();
    const std::vector<bench::Dataset> datasets = options_.read_datasets();
    take_prompts(datasets);
    if (options_.out) {
      journal_.emplace(*options_.out, options_.settings_json(pairs_, datasets));
    }
    // Not before: what is refused says so in one line.
    for (const bench::Dataset& dataset : datasets) {
      for (const std::string& line : dataset.skipped) print_warning(line + "; skipped");
    }
    const InterruptWatch watch([this] { interrupt(); });
    for (size_t pair = 0; pair < pairs_.size() && !interrupted_; ++pair) measure(pair);
    return finish();
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Done = std::set<std::tuple<size_t, int, size_t>>;  ///< prompt, repeat, setting

  void take_prompts(const std::vector<bench::Dataset>& datasets) {
    for (const bench::Dataset& dataset : datasets) {
      report_.datasets.push_back({dataset.name, dataset.format,
                                  static_cast<int>(dataset.prompts.size()),
                                  static_cast<int>(dataset.skipped.size())});
      for (const bench::Prompt& prompt : dataset.prompts) {
        const auto& known = report_.categories;
        if (std::find(known.begin(), known.end(), prompt.category) == known.end()) {
          report_.categories.push_back(prompt.category);
        }
        prompts_.push_back(prompt);
      }
    }
    report_.version = TANDEM_VERSION;
    report_.created = utc_now();
    report_.limit = options_.limit;
    report_.max_tokens = pairs_.front().config.sampling.max_tokens;
    report_.run = options_.run;
    if (options_.synthetic.given()) {
      report_.synthetic = options_.synthetic.description() + ", as far as K allows";
    }
  }

  std::unique_ptr<Engine> load(const Config& config) {
    LoadProgress progress;
    EngineOptions engine_options;
    engine_options.on_load = [&](std::string_view model, uint64_t done, uint64_t total) {
      progress.show(model, done, total);
    };
    engine_options.cancelled = [this] { return interrupted_.load(); };
    return Engine::from_config(config, engine_options);
  }

  void measure(size_t index) {
    const bench::PairUnderTest& pair = pairs_[index];
    std::unique_ptr<Engine> engine;
    try {
      engine = load(pair.config);
    } catch (const CancelledError&) {
      return;
    }
    for (const std::string& warning : engine->info().warnings) print_warning(warning);
    bench::PairRunner runner(*engine, pair, prompts_, options_.run);
    std::vector<size_t> fitting;
    for (size_t prompt = 0; prompt < prompts_.size(); ++prompt) {
      if (runner.fits(prompt)) fitting.push_back(prompt);
    }
    if (fitting.empty()) {
      throw UsageError("no prompt fits the context of " +
                       std::to_string(engine->info().max_model_len) +
                       " tokens; raise \"main.max_model_len\" or use shorter prompts");
    }
    std::vector<bench::Sample> samples = earlier(index);
    {
      const Watched watched(*this, runner);
      work_off(index, runner, fitting, samples);
    }
    report_.pairs.push_back(bench::pair_report(pair, engine->info(), prompts_, samples,
                                               report_.synthetic.empty(), report_.bootstrap));
    bench::PairReport& measured = report_.pairs.back();
    measured.num_prompts_too_long = static_cast<int>(prompts_.size() - fitting.size());
    measured.costs = engine->info().costs;
    measured.variants = bench::draft_variants(pair.config, measured);
  }

  std::vector<bench::Sample> earlier(size_t pair) const {
    std::vector<bench::Sample> samples;
    if (!journal_) return samples;
    for (const bench::JournalEntry& entry : journal_->finished()) {
      if (entry.pair == pair) samples.push_back(entry.sample);
    }
    return samples;
  }

  /// Runs what is missing; an interrupt ends it between two samples.
  void work_off(size_t index, bench::PairRunner& runner, const std::vector<size_t>& fitting,
                std::vector<bench::Sample>& samples) {
    const bench::PairUnderTest& pair = pairs_[index];
    Done done;
    for (const bench::Sample& sample : samples) {
      done.insert({sample.prompt, sample.repeat, sample.setting});
    }
    const auto due = [&](size_t number, size_t setting) {
      return !pair.settings[setting].times_rounds || bench::times_rounds_at(number, pair.settings);
    };
    int64_t total = 0;
    for (size_t number = 0; number < fitting.size(); ++number) {
      for (size_t setting = 0; setting < pair.settings.size(); ++setting) {
        total += due(number, setting) ? options_.run.repeats : 0;
      }
    }
    auto finished = static_cast<int64_t>(done.size());
    if (finished >= total) return;
    WorkProgress progress;
    const std::string name = pair.name + " " + pair.config.speculation.method;
    try {
      runner.warm_up();
      const Clock::time_point begin = Clock::now();
      int64_t timed = 0;
      for (int repeat = 0; repeat < options_.run.repeats; ++repeat) {
        for (size_t number = 0; number < fitting.size(); ++number) {
          const size_t prompt = fitting[number];
          for (const size_t setting :
               bench::interleaved_order(prompt, repeat, pair.settings.size())) {
            if (!due(number, setting) || done.contains({prompt, repeat, setting})) continue;
            const std::string what = name + ", " + pair.settings[setting].label();
            progress.show({what, finished, total,
                           std::chrono::duration<double>(Clock::now() - begin).count(), timed});
            samples.push_back(runner.run(prompt, repeat, setting));
            if (journal_) journal_->append({index, samples.back()});
            ++finished;
            ++timed;
          }
        }
      }
    } catch (const CancelledError&) {
      report_.interrupted = true;
    }
  }

  int finish() {
    report_.interrupted = report_.interrupted || interrupted_;
    // Now that the pairs no longer move: tables point to their settings.
    for (bench::PairReport& pair : report_.pairs) {
      pair.what_ifs = bench::what_if(pair);
    }
    const std::string json = report_json(report_);
    if (options_.out) {
      write_file(fs::path(*options_.out) / "report.json", json);
      write_file(fs::path(*options_.out) / "report.html", report_html(report_));
    }
    std::cout << (options_.json ? json : report_table(report_));
    if (options_.out && !options_.json) {
      std::cout << "\nWritten: " << (fs::path(*options_.out) / "report.json").string() << ", "
                << (fs::path(*options_.out) / "report.html").string() << "\n";
    }
    return static_cast<int>(report_.interrupted ? ExitCode::kRuntime : ExitCode::kOk);
  }

  void interrupt() {
    const std::lock_guard lock(mutex_);
    interrupted_ = true;
    if (runner_ != nullptr) runner_->cancel();
  }

  /// While this lives, Ctrl-C cancels the runner.
  class Watched {
   public:
    Watched(Benchmark& benchmark, bench::PairRunner& runner) : benchmark_(benchmark) {
      const std::lock_guard lock(benchmark_.mutex_);
      benchmark_.runner_ = &runner;
      if (benchmark_.interrupted_) runner.cancel();
    }
    ~Watched() {
      const std::lock_guard lock(benchmark_.mutex_);
      benchmark_.runner_ = nullptr;
    }
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;

   private:
    Benchmark& benchmark_;
  };

  BenchOptions options_;
  std::vector<bench::PairUnderTest> pairs_;
  std::vector<bench::Prompt> prompts_;
  std::optional<bench::Journal> journal_;
  bench::Report report_;
  std::mutex mutex_;
  std::atomic<bool> interrupted_ = false;
  bench::PairRunner* runner_ = nullptr;
};

}  // namespace

void add_bench(CLI::App& app, Command& command) {
  const auto options = std::make_shared<BenchOptions>();
  CLI::App* const sub = app.add_subcommand(
      "bench",
      "Measure pairs, drafters and draft lengths on a data set, beside plain decoding of the same "
      "prompts");
  options->add_to(*sub);
  sub->footer(
      "Settings take turns on each prompt, plain decoding among them, so that all see the same "
      "machine. Ctrl-C\n"
      "ends early (exit code 1) and reports what is done; the same command with the same --out "
      "goes on from there.\n"
      "Examples:\n"
      "  tandem bench --config configs/demo.json --out report\n"
      "  tandem bench --config configs/demo.json --dataset humaneval.jsonl --limit 20 "
      "--num-speculative-tokens 2,4,auto\n"
      "  tandem bench --config configs/demo.json --method draft_model,ngram --temperature 0,0.8 "
      "\\\n"
      "    --rejection-sample-method rejection,block,coupled --json");
  sub->callback([options, &command] {
    command = [options] {
      require_one_process("bench");
      return Benchmark(*options).run();
    };
  });
}

}  // namespace tandem::cli
