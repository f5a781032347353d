// Planned against really used memory of every GPU. For each configuration a pair is loaded and
// decodes a little, first greedily, then sampling; a second process, which holds nothing but its
// own contexts, reads the devices' free memory before and after. What the plan gives tandem on a
// device is held against the difference; what each kind of request took of it is shown beside.
// Asking for the free memory that a plan divides makes a CUDA context, so that the context is in
// use before the plan is made and no part of it; its size is shown beside.
//
// Overheads that no formula gives are measured by the first load on a machine; give every
// configuration twice to see what a later load plans.

#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "backend/cuda_devices.h"
#include "tandem/tandem.h"

namespace {

constexpr size_t kMostGpus = 16;
using FreeBytes = std::array<uint64_t, kMostGpus>;  ///< by GPU; 0 where there is none

/// A process that says how much memory the GPUs have free. Made before this one touches a GPU.
class Observer {
 public:
  Observer() {
    int ask[2], answer[2];
    if (pipe(ask) != 0 || pipe(answer) != 0) throw tandem::DeviceError("pipe failed");
    child_ = fork();
    if (child_ < 0) throw tandem::DeviceError("fork failed");
    if (child_ == 0) {
      close(ask[1]);
      close(answer[0]);
      observe(ask[0], answer[1]);
      _exit(0);
    }
    close(ask[0]);
    close(answer[1]);
    ask_ = ask[1];
    answer_ = answer[0];
  }
  ~Observer() {
    close(ask_);
    close(answer_);
    waitpid(child_, nullptr, 0);
  }
  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;

  FreeBytes free_bytes() const {
    const char question = 0;
    FreeBytes bytes{};
    if (write(ask_, &question, 1) != 1 || read(answer_, &bytes, sizeof(bytes)) != sizeof(bytes) ||
        bytes.front() == 0) {
      throw tandem::DeviceError("the observing process could not read the GPUs' free memory");
    }
    return bytes;
  }

 private:
  static void observe(int ask, int answer) {
    char question = 0;
    while (read(ask, &question, 1) == 1) {
      FreeBytes bytes{};
      try {
        const auto gpus = tandem::describe_devices(tandem::list_cuda_devices());
        for (size_t i = 0; i < std::min(gpus.size(), kMostGpus); ++i) {
          bytes[i] = gpus[i].free_bytes;
        }
      } catch (const tandem::Error&) {  // 0 says so
      }
      if (write(answer, &bytes, sizeof(bytes)) != sizeof(bytes)) return;
    }
  }

  pid_t child_ = -1;
  int ask_ = -1;
  int answer_ = -1;
};

constexpr double kMiB = 1048576.0;

/// Requests that decode by other passes or rules than the one before.
struct Request {
  const char* name;
  tandem::SamplingParams params;
};
std::vector<Request> requests() {
  tandem::SamplingParams greedy;
  greedy.max_tokens = 192;
  greedy.ignore_eos = true;
  tandem::SamplingParams sampled = greedy;
  sampled.temperature = 0.8f;
  sampled.seed = 1;
  tandem::SamplingParams all = sampled;
  all.top_p = 0.9f;
  all.top_k = 40;
  all.min_p = 0.01f;
  all.repetition_penalty = 1.1f;
  all.logprobs = 5;
  return {
      {"greedy", greedy}, {"sampled", sampled}, {"with all else", all}, {"greedy again", greedy}};
}

double lost_between(const FreeBytes& before, const FreeBytes& after, size_t gpu) {
  return static_cast<double>(before[gpu]) - static_cast<double>(after[gpu]);
}

/// Loads and decodes, and leaves what was planned and used in the caller's sight. A process of its
/// own: a context stays with its process.
int measure(const std::string& config, const Observer& observer) {
  try {
    const FreeBytes bare = observer.free_bytes();
    (void)tandem::list_devices();  // makes the contexts
    const FreeBytes before = observer.free_bytes();
    const auto engine = tandem::Engine::from_config(std::filesystem::path(config));
    std::vector<FreeBytes> steps{observer.free_bytes()};
    const std::vector<Request> texts = requests();
    for (const Request& request : texts) {
      (void)engine->generate("def", request.params);
      steps.push_back(observer.free_bytes());
    }
    const FreeBytes after = steps.back();
    for (const tandem::DevicePlan& device : engine->memory_plan().devices) {
      const auto gpu = static_cast<size_t>(tandem::parse_device(device.name).id.index);
      const auto planned = static_cast<double>(device.bytes_of(""));
      if (planned == 0 || gpu >= kMostGpus) continue;
      const double used = lost_between(before, after, gpu);
      std::printf(
          "%-32s %-7s planned %10.1f MiB  used %10.1f MiB  difference %+.2f %%  (context %.1f "
          "MiB)\n",
          config.c_str(), device.name.c_str(), planned / kMiB, used / kMiB,
          100 * (used - planned) / planned, lost_between(bare, before, gpu) / kMiB);
      std::printf("  %-7s loaded %.1f MiB", device.name.c_str(),
                  lost_between(before, steps.front(), gpu) / kMiB);
      for (size_t i = 0; i < texts.size(); ++i) {
        std::printf("; %s %+.1f", texts[i].name, lost_between(steps[i], steps[i + 1], gpu) / kMiB);
      }
      std::printf("\n");
    }
    const tandem::EngineStats stats = engine->stats();
    for (const tandem::MemoryUse& use : stats.memory) {
      std::printf("  %-8s %-8s %-14s %12.2f MiB planned %12.2f MiB taken\n", use.device.c_str(),
                  use.model.c_str(), std::string(tandem::name_of(use.purpose)).c_str(),
                  static_cast<double>(use.planned_bytes) / kMiB,
                  static_cast<double>(use.actual_bytes) / kMiB);
    }
    std::fflush(stdout);
    return 0;
  } catch (const tandem::Error& error) {
    std::fprintf(stderr, "bench_memory: %s: %s\n", config.c_str(), error.what());
    return static_cast<int>(error.exit_code());
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> configs;
  CLI::App app("Compares planned memory with what a GPU says is used");
  app.add_option("config", configs, "Configurations to load, one after the other")
      ->required()
      ->check(CLI::ExistingFile);
  CLI11_PARSE(app, argc, argv);
  int worst = 0;
  try {
    const Observer observer;
    (void)observer.free_bytes();  // its own context exists from here on
    for (const std::string& config : configs) {
      const pid_t child = fork();
      if (child == 0) _exit(measure(config, observer));
      int status = 0;
      waitpid(child, &status, 0);
      worst = std::max(worst, WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
  } catch (const tandem::Error& error) {
    std::fprintf(stderr, "bench_memory: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
  return worst;
}
