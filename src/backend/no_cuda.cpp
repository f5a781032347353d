#include "backend/cuda_devices.h"
#include "backend/pass_link.h"
#include "backend/peer_exchange.h"
#include "tandem/error.h"

// The stand-in for the CUDA backend where CMake found no CUDA toolkit.
namespace tandem {
namespace {

[[noreturn]] void refuse(DeviceId device) {
  throw UsageError(to_string(device) +
                   ": this build of tandem has no CUDA support; rebuild where the CUDA toolkit is "
                   "installed, or use device 'cpu'");
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(DeviceId device) { refuse(device); }

std::vector<DeviceId> list_cuda_devices() { return {}; }

std::optional<DeviceInfo> describe_cuda_device(DeviceId) { return std::nullopt; }

double measure_read_bandwidth(DeviceId device) { refuse(device); }

double measure_library_product(DeviceId device, int64_t, int64_t, int64_t) { refuse(device); }

std::vector<std::unique_ptr<PeerExchange>> join_peers(std::span<const PeerMember>, int64_t) {
  return {};
}

std::vector<std::unique_ptr<PassLink>> link_ranks(std::span<const LinkMember>, const LinkWords&) {
  return {};
}

bool open_peers(Backend&, Backend&) { return true; }  // both in the host's memory

}  // namespace tandem
