#include "comm/nccl_communicator.h"
#include "tandem/error.h"

// The stand-in for NCCL where CMake found none.
namespace tandem {
namespace {

[[noreturn]] void refuse() {
  throw UsageError(
      "several GPUs work together through NCCL, which this build of tandem lacks; rebuild where "
      "CUDA and NCCL (libnccl-dev) are installed, or name one GPU");
}

}  // namespace

bool has_nccl() { return false; }

NcclId draw_nccl_id() { refuse(); }

std::vector<std::unique_ptr<Communicator>> make_nccl_communicators(const NcclId&, int, int,
                                                                   std::span<const int>, Traffic,
                                                                   const std::string&) {
  refuse();
}

std::vector<std::unique_ptr<Communicator>> make_nccl_communicators(ProcessGroup&, int, int,
                                                                   std::span<const int>, Traffic) {
  refuse();
}

}  // namespace tandem
