#include "cli/process_options.h"

#include <cmath>
#include <cstdlib>
#include <string>

#include "tandem/error.h"

namespace tandem::cli {
namespace {

const char* variable(const char* name) { return std::getenv(name); }

}  // namespace

void ProcessOptions::add_to(CLI::App& sub) {
  const char* const kProcesses =
      "Several processes (torchrun, mpirun and srun say all of this themselves)";
  sub.add_option("--rank", given.rank, "Which of the processes this is; 0 prints")
      ->type_name("R")
      ->group(kProcesses);
  sub.add_option("--world-size", given.world_size, "How many processes share the main model")
      ->type_name("N")
      ->group(kProcesses);
  sub.add_option("--local-rank", given.local_rank,
                 "Which of this host's processes this is: the GPU it drives")
      ->type_name("L")
      ->group(kProcesses);
  sub.add_option("--master-addr", given.address, "Host of rank 0 (else MASTER_ADDR)")
      ->type_name("HOST")
      ->group(kProcesses);
  sub.add_option("--master-port", given.port, "Port that rank 0 listens on (else MASTER_PORT)")
      ->type_name("PORT")
      ->group(kProcesses);
  sub.add_option("--join-timeout", patience_seconds,
                 "How long to wait for the other processes to come; 120")
      ->type_name("SECONDS")
      ->group(kProcesses);
}

std::shared_ptr<ProcessGroup> ProcessOptions::join() const {
  ProcessPlaceOptions options = given;
  if (patience_seconds) {
    constexpr double kLongest = 86'400, kMilliseconds = 1e3;
    if (!(*patience_seconds > 0 && *patience_seconds <= kLongest)) {
      throw UsageError("--join-timeout is " + std::to_string(*patience_seconds) +
                       "; expected seconds above 0, at most a day");
    }
    options.patience =
        std::chrono::milliseconds(std::lround(std::ceil(*patience_seconds * kMilliseconds)));
  }
  return join_processes(find_process_place(options, variable));
}

void require_one_process(const char* command) {
  const ProcessPlace place = find_process_place({}, variable);
  if (place.world_size == 1) return;
  throw UsageError("'tandem " + std::string(command) + "' runs in one process, but " +
                   place.launcher + " started " + std::to_string(place.world_size) +
                   "; name this process's GPUs with \"main.devices\" instead");
}

}  // namespace tandem::cli
