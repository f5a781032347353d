#include "collective.h"

#include "attention_common.cuh"
#include "packet.cuh"
#include "round.cuh"

namespace tandem::kernels {
namespace {

// What ranks compute together. Bound: for the few rows of a round, the latency of a store to
// another GPU's memory; then the link's bandwidth.

constexpr int kThreads = 256;
constexpr int kWords = 4;  // of a thread
static_assert(kThreads * kWords == kPeerBlockWords && kThreads == kPeerChoices);

__device__ __forceinline__ float4 plus(float4 a, float4 b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

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

__device__ __forceinline__ float4 norm_weight_at(const NormArgs& norm, int64_t at) {
  const uint32_t column = static_cast<uint32_t>(at) % static_cast<uint32_t>(norm.cols);
  return *reinterpret_cast<const float4*>(norm.weight + column);
}

/// Leaves the norm of a thread's four elements from `at` on. All lanes of a warp call it: four
/// neighbouring ones share a sum of squares. Those without elements bring zeros.
__device__ __forceinline__ void leave_norm(const NormArgs& norm, int64_t at, bool has_elements,
                                           float4 value, float4 weight) {
  float squares = value.x * value.x;
  squares = fmaf(value.y, value.y, squares);
  squares = fmaf(value.z, value.z, squares);
  squares = fmaf(value.w, value.w, squares);
  squares += __shfl_xor_sync(0xffffffffu, squares, 1);
  squares += __shfl_xor_sync(0xffffffffu, squares, 2);
  if (!has_elements) return;
  static_cast<uint2*>(norm.normed)[at / kWords] = {
      pack_bf16(value.x * weight.x, value.y * weight.y),
      pack_bf16(value.z * weight.z, value.w * weight.w)};
  if (at % kPanelOutputs == 0) norm.squares[at / kPanelOutputs] = squares;
}

/// A thread for four elements.
__global__ __launch_bounds__(kThreads) void add_parts_norm_kernel(
    const float* parts, int ranks, float* out, int64_t count,
    const __grid_constant__ NormArgs norm) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWords;
  const bool has_elements = at < count;
  float4 value = {}, weight = {};
  if (has_elements) weight = norm_weight_at(norm, at);
  wait_for_earlier_work();
  let_next_kernel_start();
  if (has_elements) {
    float4 sum = *reinterpret_cast<const float4*>(parts + at);
    for (int rank = 1; rank < ranks; ++rank) {
      sum = plus(sum, *reinterpret_cast<const float4*>(parts + rank * count + at));
    }
    float4& to = *reinterpret_cast<float4*>(out + at);
    to = value = plus(to, sum);
  }
  leave_norm(norm, at, has_elements, value, weight);
}

/// The place of one thread's packets in a landing zone; its two packets are kThreads apart.
__device__ __forceinline__ uint4* place(const PeerArgs& args, int owner, int from, uint32_t epoch) {
  constexpr int64_t kPackets = kPeerBlockWords / 2;
  const int64_t stage = epoch % kPeerStages;
  const int64_t block = (stage * args.ranks + from) * args.blocks + blockIdx.x;
  return static_cast<uint4*>(args.memory[owner]) + block * kPackets + threadIdx.x;
}

/// Numbers of the blocks' last exchanges.
__device__ __forceinline__ uint32_t* epochs_of(const PeerArgs& args) {
  return reinterpret_cast<uint32_t*>(static_cast<char*>(args.memory[args.rank]) +
                                     peer_zone_bytes(args.ranks, args.blocks));
}

/// Gives every other rank a thread's four words.
__device__ __forceinline__ void send_words(const PeerArgs& args, uint4 words, uint32_t epoch) {
  for (int i = 1; i < args.ranks; ++i) {
    uint4* const to = place(args, (args.rank + i) % args.ranks, args.rank, epoch);
    store_packet(to, words.x, words.y, epoch);
    store_packet(to + kThreads, words.z, words.w, epoch);
  }
}
/// Waits for those of rank `from`; false when told to give up.
__device__ __forceinline__ bool take_words(const PeerArgs& args, int from, uint32_t epoch,
                                           uint4& words) {
  const uint4* const landed = place(args, args.rank, from, epoch);
  return take_packet(landed, epoch, args.abort, words.x, words.y) &&
         take_packet(landed + kThreads, epoch, args.abort, words.z, words.w);
}

// Every rank writes its words into the landing zones of the others, flagged with the number of the
// exchange, and takes theirs from its own: one trip over the link, no fence, no barrier.
//
// The number is counted in device memory, so graphs can be replayed, and for each block alone, so
// exchanges may differ in size. A rank writes exchange e + 2 of a block over e only after it has
// taken every rank's e + 1, which these send after they are through with e.

/// out += the ranks' terms in rank order. kNorm: the norm of `out` besides, which the next kernel
/// is a matmul of.
template <bool kNorm>
__global__ __launch_bounds__(kThreads) void peer_add_kernel(const __grid_constant__ PeerArgs args,
                                                            const float* terms, float* out,
                                                            int64_t count,
                                                            const __grid_constant__ NormArgs norm) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kPeerBlockWords + threadIdx.x * kWords;
  const bool has_elements = at < count;
  float4 value = {}, weight = {};
  if (kNorm && has_elements) weight = norm_weight_at(norm, at);
  if (!kNorm) let_next_kernel_start();
  wait_for_earlier_work();
  if (kNorm) let_next_kernel_start();
  const uint32_t epoch = epochs_of(args)[blockIdx.x] + 1;
  if (has_elements) {
    const uint4 own = *reinterpret_cast<const uint4*>(terms + at);
    float4& to = *reinterpret_cast<float4*>(out + at);
    const float4 before = to;
    send_words(args, own, epoch);
    float4 sum = {};
    bool complete = true;
    for (int from = 0; from < args.ranks && complete; ++from) {
      uint4 words = own;
      if (from != args.rank) complete = take_words(args, from, epoch, words);
      const float4 theirs = {__uint_as_float(words.x), __uint_as_float(words.y),
                             __uint_as_float(words.z), __uint_as_float(words.w)};
      sum = from == 0 ? theirs : plus(sum, theirs);
    }
    if (complete) to = value = plus(before, sum);
  }
  if (kNorm) leave_norm(norm, at, has_elements, value, weight);
  __syncthreads();
  if (threadIdx.x == 0) epochs_of(args)[blockIdx.x] = epoch;
}

/// words = the root's; zeros when told to give up: they may be rows' tokens, slots and sequences,
/// which the kernels behind this one still use.
__global__ __launch_bounds__(kThreads) void peer_broadcast_kernel(
    const __grid_constant__ PeerArgs args, uint32_t* words, int64_t count, int root) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const uint32_t epoch = epochs_of(args)[blockIdx.x] + 1;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kPeerBlockWords + threadIdx.x * kWords;
  if (at < count) {
    uint4& mine = *reinterpret_cast<uint4*>(words + at);
    uint4 chosen = mine;
    send_words(args, chosen, epoch);
    bool complete = true;
    for (int from = 0; from < args.ranks && complete; ++from) {
      uint4 taken = {};
      if (from == args.rank) continue;
      complete = take_words(args, from, epoch, taken);
      if (from == root) chosen = taken;
    }
    mine = complete ? chosen : uint4{};
  }
  __syncthreads();
  if (threadIdx.x == 0) epochs_of(args)[blockIdx.x] = epoch;
}

/// A thread, and a packet to each rank, for each row. Id 0 when told to give up.
__global__ __launch_bounds__(kThreads) void peer_join_argmax_kernel(
    const __grid_constant__ PeerArgs args, const uint2* choices, int rows, int32_t* ids) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const uint32_t epoch = epochs_of(args)[blockIdx.x] + 1;
  const auto row = static_cast<int>(threadIdx.x);
  if (row < rows) {
    const uint2 own = choices[row];
    for (int i = 1; i < args.ranks; ++i) {
      store_packet(place(args, (args.rank + i) % args.ranks, args.rank, epoch), own.x, own.y,
                   epoch);
    }
    unsigned long long best = 0;
    bool complete = true;
    for (int from = 0; from < args.ranks && complete; ++from) {
      uint2 choice = own;
      if (from != args.rank) {
        complete =
            take_packet(place(args, args.rank, from, epoch), epoch, args.abort, choice.x, choice.y);
      }
      const unsigned long long key =
          choice_key(__uint_as_float(choice.x), static_cast<int>(choice.y));
      best = key > best ? key : best;
    }
    if (ids != nullptr) ids[row] = complete ? id_of(best) : 0;
  }
  __syncthreads();
  if (threadIdx.x == 0) epochs_of(args)[blockIdx.x] = epoch;
}

}  // namespace

cudaError_t add_parts(const float* parts, int ranks, float* out, int64_t count, Launch launch) {
  const int64_t wanted = (count + kThreads - 1) / kThreads;
  const int64_t most = static_cast<int64_t>(launch.multiprocessors) * 8;
  return launch_kernel(add_parts_kernel, dim3(static_cast<unsigned>(wanted < most ? wanted : most)),
                       dim3(kThreads), 0, launch, parts, ranks, out, count);
}

cudaError_t add_parts_norm(const float* parts, int ranks, float* out, int64_t count,
                           const NormArgs& norm, Launch launch) {
  return launch_between_matmuls(add_parts_norm_kernel,
                                dim3(static_cast<unsigned>(peer_blocks(count))), dim3(kThreads), 0,
                                launch, parts, ranks, out, count, norm);
}

cudaError_t peer_add(const PeerArgs& args, const float* terms, float* out, int64_t count,
                     Launch launch) {
  return launch_kernel(peer_add_kernel<false>, dim3(static_cast<unsigned>(peer_blocks(count))),
                       dim3(kThreads), 0, launch, args, terms, out, count, NormArgs{});
}

cudaError_t peer_add_norm(const PeerArgs& args, const float* terms, float* out, int64_t count,
                          const NormArgs& norm, Launch launch) {
  return launch_between_matmuls(peer_add_kernel<true>,
                                dim3(static_cast<unsigned>(peer_blocks(count))), dim3(kThreads), 0,
                                launch, args, terms, out, count, norm);
}

cudaError_t peer_join_argmax(const PeerArgs& args, const int32_t* choices, int rows, int32_t* ids,
                             Launch launch) {
  return launch_kernel(peer_join_argmax_kernel, dim3(1), dim3(kThreads), 0, launch, args,
                       reinterpret_cast<const uint2*>(choices), rows, ids);
}

cudaError_t peer_broadcast(const PeerArgs& args, uint32_t* words, int64_t count, int root,
                           Launch launch) {
  return launch_kernel(peer_broadcast_kernel, dim3(static_cast<unsigned>(peer_blocks(count))),
                       dim3(kThreads), 0, launch, args, words, count, root);
}

}  // namespace tandem::kernels
