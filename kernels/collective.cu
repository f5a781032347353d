#include "collective.h"
#include "common.cuh"
#include "packet.cuh"

namespace tandem::kernels {
namespace {

// What ranks compute together. Bound: for the few rows of a round, the latency of a store to
// another GPU's memory; then the link's bandwidth.

constexpr int kThreads = 256;
constexpr int kWords = 4;  // of a thread
static_assert(kThreads * kWords == kPeerBlockWords);

__global__ void add_parts_kernel(const float* parts, int ranks, float* out, int64_t count) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    float sum = parts[i];
    for (int rank = 1; rank < ranks; ++rank) sum += parts[rank * count + i];
    out[i] += sum;
  }
}

/// The place of one thread's packets in a landing zone; its two packets are kThreads apart.
__device__ __forceinline__ uint4* place(const PeerArgs& args, int owner, int from, uint32_t epoch) {
  constexpr int64_t kPackets = kPeerBlockWords / 2;
  const int64_t stage = epoch % kPeerStages;
  const int64_t block = (stage * args.ranks + from) * args.blocks + blockIdx.x;
  return static_cast<uint4*>(args.memory[owner]) + block * kPackets + threadIdx.x;
}

/// Every rank writes its words into the landing zones of the others, flagged with the number of the
/// exchange, and takes theirs from its own: one trip over the link, no fence, no barrier.
///
/// The number is counted in device memory, so graphs can be replayed, and for each block alone, so
/// exchanges may differ in size. A rank writes exchange e + 2 of a block over e only after it has
/// taken every rank's e + 1, which these send after they are through with e.
///
/// kBroadcast: `in` is the root's, and out = in. Otherwise out += the sum in rank order.
template <bool kBroadcast>
__global__ __launch_bounds__(kThreads) void peer_kernel(const __grid_constant__ PeerArgs args,
                                                        const uint32_t* in, uint32_t* out,
                                                        int64_t count, int root) {
  let_next_kernel_start();
  wait_for_earlier_work();
  auto* const epochs = reinterpret_cast<uint32_t*>(static_cast<char*>(args.memory[args.rank]) +
                                                   peer_zone_bytes(args.ranks, args.blocks));
  const uint32_t epoch = epochs[blockIdx.x] + 1;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kPeerBlockWords + threadIdx.x * kWords;
  if (at < count) {
    const uint4 own = *reinterpret_cast<const uint4*>(in + at);
    for (int i = 1; i < args.ranks; ++i) {
      uint4* const to = place(args, (args.rank + i) % args.ranks, args.rank, epoch);
      store_packet(to, own.x, own.y, epoch);
      store_packet(to + kThreads, own.z, own.w, epoch);
    }
    float4 sum = {};
    uint4 chosen = {};
    bool complete = true;
    for (int from = 0; from < args.ranks && complete; ++from) {
      uint4 words = own;
      if (from != args.rank) {
        const uint4* const landed = place(args, args.rank, from, epoch);
        complete = take_packet(landed, epoch, args.abort, words.x, words.y) &&
                   take_packet(landed + kThreads, epoch, args.abort, words.z, words.w);
      }
      if (kBroadcast) {
        if (from == root) chosen = words;
      } else {
        const float4 terms = {__uint_as_float(words.x), __uint_as_float(words.y),
                              __uint_as_float(words.z), __uint_as_float(words.w)};
        sum = from == 0
                  ? terms
                  : float4{sum.x + terms.x, sum.y + terms.y, sum.z + terms.z, sum.w + terms.w};
      }
    }
    if (complete && kBroadcast) *reinterpret_cast<uint4*>(out + at) = chosen;
    if (complete && !kBroadcast) {
      float4& to = *reinterpret_cast<float4*>(out + at);
      const float4 before = to;
      to = {before.x + sum.x, before.y + sum.y, before.z + sum.z, before.w + sum.w};
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) epochs[blockIdx.x] = epoch;
}

}  // namespace

cudaError_t add_parts(const float* parts, int ranks, float* out, int64_t count, Launch launch) {
  const int64_t wanted = (count + kThreads - 1) / kThreads;
  const int64_t most = static_cast<int64_t>(launch.multiprocessors) * 8;
  return launch_kernel(add_parts_kernel, dim3(static_cast<unsigned>(wanted < most ? wanted : most)),
                       dim3(kThreads), 0, launch, parts, ranks, out, count);
}

cudaError_t peer_add(const PeerArgs& args, const float* terms, float* out, int64_t count,
                     Launch launch) {
  constexpr int kNoRoot = -1;
  return launch_kernel(peer_kernel<false>, dim3(static_cast<unsigned>(peer_blocks(count))),
                       dim3(kThreads), 0, launch, args, reinterpret_cast<const uint32_t*>(terms),
                       reinterpret_cast<uint32_t*>(out), count, kNoRoot);
}

cudaError_t peer_broadcast(const PeerArgs& args, uint32_t* words, int64_t count, int root,
                           Launch launch) {
  return launch_kernel(peer_kernel<true>, dim3(static_cast<unsigned>(peer_blocks(count))),
                       dim3(kThreads), 0, launch, args, words, words, count, root);
}

}  // namespace tandem::kernels
