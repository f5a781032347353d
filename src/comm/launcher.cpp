// What torchrun, Open MPI and Slurm tell the processes that they start.

#include <charconv>
#include <string>
#include <string_view>

#include "tandem/error.h"
#include "tandem/processes.h"

namespace tandem {
namespace {

constexpr int kLargestPort = 65535;
constexpr int kLargestWorld = 4096;
constexpr std::string_view kThisHost = "127.0.0.1";

int parse_number(const std::string& name, std::string_view text, int least, int most) {
  int value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() && value >= least &&
      value <= most) {
    return value;
  }
  throw UsageError(name + " is '" + std::string(text) + "'; expected an integer from " +
                   std::to_string(least) + " to " + std::to_string(most));
}

/// The first host of a Slurm list: "node[03-05,07],other" begins with node03.
std::string first_host(std::string_view list) {
  const size_t bracket = list.find('['), comma = list.find(',');
  if (bracket == std::string_view::npos || comma < bracket) {
    return std::string(list.substr(0, comma));
  }
  const size_t end = list.find_first_of(",-]", bracket);
  const size_t closing = list.find(']', bracket);
  if (end == std::string_view::npos || closing == std::string_view::npos) return {};
  std::string host(list.substr(0, bracket));
  host += list.substr(bracket + 1, end - bracket - 1);
  const std::string_view rest = list.substr(closing + 1);
  return host + std::string(rest.substr(0, rest.find(',')));
}

class Launcher {
 public:
  explicit Launcher(const std::function<const char*(const char*)>& variable)
      : variable_(variable) {}

  std::optional<std::string> text(const char* name) const {
    const char* const value = variable_(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  }

  std::optional<int> number(const char* name, int least, int most) const {
    const std::optional<std::string> value = text(name);
    if (!value) return std::nullopt;
    return parse_number(name, *value, least, most);
  }

  /// A launcher's variables, if it set them.
  bool take(ProcessPlace& place, const char* launcher, const char* rank, const char* world,
            const char* local) const {
    const std::optional<int> size = number(world, 1, kLargestWorld);
    if (!size) return false;
    const std::optional<int> own = number(rank, 0, kLargestWorld - 1);
    if (!own) {
      if (*size == 1) return false;
      throw UsageError(std::string(world) + " is " + std::to_string(*size) + ", but " + rank +
                       " is not set: which of the processes is this?");
    }
    place.launcher = launcher;
    place.rank = *own;
    place.world_size = *size;
    place.local_rank = number(local, 0, kLargestWorld - 1);
    return true;
  }

 private:
  const std::function<const char*(const char*)>& variable_;
};

void take_launcher(ProcessPlace& place, const Launcher& launcher) {
  if (launcher.take(place, "torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK")) return;
  if (launcher.take(place, "Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                    "OMPI_COMM_WORLD_LOCAL_RANK")) {
    // All on one host: there is no need to say where rank 0 is.
    if (launcher.number("OMPI_COMM_WORLD_LOCAL_SIZE", 1, kLargestWorld) == place.world_size) {
      place.address = kThisHost;
    }
    return;
  }
  // A step may have fewer tasks than the job. Outside of one, the job's number of tasks says
  // nothing about this process: a shell in an allocation has no number, a batch script the first
  // one.
  if (!launcher.text("SLURM_PROCID")) return;
  const bool in_step = launcher.text("SLURM_STEP_ID") || launcher.text("SLURM_STEP_NUM_TASKS");
  if (!in_step && launcher.text("ENVIRONMENT") == "BATCH") return;
  const char* const tasks =
      launcher.text("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  if (!launcher.take(place, "Slurm", "SLURM_PROCID", tasks, "SLURM_LOCALID")) return;
  for (const char* const list : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"}) {
    if (!place.address.empty()) break;
    if (const auto nodes = launcher.text(list)) place.address = first_host(*nodes);
  }
  if (place.address.empty()) {
    place.address = launcher.text("SLURM_LAUNCH_NODE_IPADDR").value_or("");
  }
  // Jobs that share a node should not share a port.
  constexpr int kPorts = 1000;
  if (const auto job = launcher.number("SLURM_JOB_ID", 0, INT32_MAX)) {
    place.port = ProcessPlace::kDefaultPort + *job % kPorts;
  }
}

}  // namespace

ProcessPlace find_process_place(const ProcessPlaceOptions& options,
                                const std::function<const char*(const char*)>& variable) {
  const Launcher launcher(variable);
  ProcessPlace place;
  take_launcher(place, launcher);
  if (const auto address = launcher.text("MASTER_ADDR")) place.address = *address;
  if (const auto port = launcher.number("MASTER_PORT", 1, kLargestPort)) {
    place.port = *port;
    // torchrun's own store listens on this port, then: the next one is taken.
    if (launcher.text("TORCHELASTIC_USE_AGENT_STORE") == "True" && *port < kLargestPort) {
      place.port = *port + 1;
    }
  }
  const auto option = [](const char* name, const std::optional<int>& given, int least, int most,
                         int& value) {
    if (given) value = parse_number(name, std::to_string(*given), least, most);
  };
  option("--world-size", options.world_size, 1, kLargestWorld, place.world_size);
  option("--rank", options.rank, 0, kLargestWorld - 1, place.rank);
  option("--master-port", options.port, 1, kLargestPort, place.port);
  if (options.local_rank) {
    place.local_rank =
        parse_number("--local-rank", std::to_string(*options.local_rank), 0, kLargestWorld - 1);
  }
  if (options.address) place.address = *options.address;
  if (options.patience) place.patience = *options.patience;
  if (options.rank && !options.world_size && place.world_size == 1) {
    throw UsageError("--rank is given without --world-size");
  }
  if (options.world_size && *options.world_size > 1 && !options.rank && place.launcher.empty()) {
    throw UsageError("--world-size is given without --rank: which of the processes is this?");
  }
  if (place.rank >= place.world_size) {
    throw UsageError("rank " + std::to_string(place.rank) + " is outside of a world of " +
                     std::to_string(place.world_size) + "; ranks count from 0");
  }
  if (place.world_size > 1 && place.address.empty()) {
    const std::string who =
        place.launcher.empty() ? "nothing says" : place.launcher + " does not say";
    throw UsageError(who +
                     " where rank 0 is: set MASTER_ADDR (and MASTER_PORT), or give "
                     "--master-addr HOST");
  }
  return place;
}

}  // namespace tandem
