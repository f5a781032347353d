#include <cuda_runtime_api.h>

#include <string>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_check.h"
#include "backend/cuda/peer_access.h"
#include "backend/peer_exchange.h"
#include "kernels/collective.h"
#include "tandem/error.h"

namespace tandem {
namespace {

class CudaPeerExchange final : public PeerExchange {
 public:
  CudaPeerExchange(CudaBackend& backend, std::shared_ptr<AbortWord> abort,
                   const kernels::PeerArgs& args)
      : backend_(backend), abort_(std::move(abort)), args_(args) {}

  int64_t max_words() const override { return int64_t{args_.blocks} * kernels::kPeerBlockWords; }

  void add(TensorView terms, TensorView out, Stream& stream) override {
    check_sum(terms, out);
    if (terms.count() == 0) return;
    check_cuda(kernels::peer_add(args_, terms.as<float>(), out.as<float>(), terms.count(),
                                 backend_.launch(stream)),
               "peer_add", backend_.device().index);
  }

  void add_norm(TensorView terms, TensorView hidden, TensorView norm_weight,
                const NormedRows& normed, Stream& stream) override {
    check_sum(terms, hidden);
    const kernels::NormArgs norm = CudaBackend::norm_args(hidden, norm_weight, normed);
    if (terms.count() == 0) return;
    check_cuda(kernels::peer_add_norm(args_, terms.as<float>(), hidden.as<float>(), terms.count(),
                                      norm, backend_.launch(stream)),
               "peer_add_norm", backend_.device().index);
  }

  void join_argmax(TensorView choices, int32_t* ids, Stream& stream) override {
    const int64_t rows = choices.shape().rank() == 2 ? choices.dim(0) : 0;
    if (choices.dtype() != DType::kI32 || choices.shape() != Shape{rows, 2} ||
        rows > kMostChoices) {
      throw ShapeError("peer exchange: choices " + choices.shape().to_string() +
                       ", expected int32 (rows, 2), at most " + std::to_string(kMostChoices) +
                       " rows");
    }
    if (rows == 0) return;
    check_cuda(kernels::peer_join_argmax(args_, choices.as<int32_t>(), static_cast<int>(rows), ids,
                                         backend_.launch(stream)),
               "peer_join_argmax", backend_.device().index);
  }

  void broadcast(TensorView words, int root, Stream& stream) override {
    if (words.bytes() != static_cast<size_t>(words.count()) * sizeof(uint32_t) ||
        words.count() % kMultiple != 0 || words.count() > max_words() || root < 0 ||
        root >= args_.ranks) {
      throw ShapeError("peer exchange: " + words.shape().to_string() + " words of rank " +
                       std::to_string(root) + ", expected a multiple of " +
                       std::to_string(kMultiple) + ", at most " + std::to_string(max_words()));
    }
    if (words.count() == 0) return;
    check_cuda(kernels::peer_broadcast(args_, words.as<uint32_t>(), words.count(), root,
                                       backend_.launch(stream)),
               "peer_broadcast", backend_.device().index);
  }

  void abort() noexcept override { *abort_->word() = 1; }

 private:
  static constexpr int64_t kMultiple = 4;
  static_assert(kMostChoices == kernels::kPeerChoices);

  void check_sum(const TensorView& terms, const TensorView& out) const {
    if (terms.dtype() == DType::kF32 && out.dtype() == DType::kF32 &&
        terms.count() == out.count() && terms.count() % kMultiple == 0 &&
        terms.count() <= max_words()) {
      return;
    }
    throw ShapeError("peer exchange: terms " + terms.shape().to_string() + " for " +
                     out.shape().to_string() + ", expected equally many float32, a multiple of " +
                     std::to_string(kMultiple) + ", at most " + std::to_string(max_words()));
  }

  CudaBackend& backend_;
  const std::shared_ptr<AbortWord> abort_;
  const kernels::PeerArgs args_;
};

bool reach_each_other(std::span<const PeerMember> members) {
  for (const PeerMember& from : members) {
    for (const PeerMember& to : members) {
      if (from.backend == to.backend) continue;
      if (!can_reach(from.backend->device().index, to.backend->device().index)) return false;
    }
  }
  return true;
}

void open_to_peers(std::span<const PeerMember> members) {
  for (const PeerMember& from : members) {
    const int device = from.backend->device().index;
    for (const PeerMember& to : members) {
      if (from.backend != to.backend) enable_access(device, to.backend->device().index);
    }
    check_cuda(cudaSetDevice(device), "cudaSetDevice", device);
    check_cuda(cudaMemset(from.memory.data(), 0, from.memory.bytes()), "cudaMemset", device);
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize", device);
  }
}

}  // namespace

std::vector<std::unique_ptr<PeerExchange>> join_peers(std::span<const PeerMember> members,
                                                      int64_t max_words) {
  std::vector<std::unique_ptr<PeerExchange>> ranks;
  const auto size = static_cast<int>(members.size());
  const auto usable = [&](const PeerMember& member) {
    const DeviceKind kind = member.backend->device().kind;
    const int64_t bytes = peer_memory_bytes(kind, size, max_words);
    return bytes > 0 && member.memory.bytes() >= static_cast<size_t>(bytes);
  };
  for (const PeerMember& member : members) {
    if (!usable(member)) return ranks;
  }
  if (!reach_each_other(members)) return ranks;
  open_to_peers(members);

  kernels::PeerArgs args;
  args.ranks = size;
  args.blocks = static_cast<int>(kernels::peer_blocks(max_words));
  for (size_t rank = 0; rank < members.size(); ++rank)
    args.memory[rank] = members[rank].memory.data();
  const auto abort = std::make_shared<AbortWord>(members.front().backend->device().index);
  args.abort = abort->word();
  for (const PeerMember& member : members) {
    ranks.push_back(std::make_unique<CudaPeerExchange>(static_cast<CudaBackend&>(*member.backend),
                                                       abort, args));
    ++args.rank;
  }
  return ranks;
}

}  // namespace tandem
