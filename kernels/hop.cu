#include "hop.h"

#include "common.cuh"
#include "packet.cuh"

namespace tandem::kernels {
namespace {

// A message from one GPU to others. Bound: for the few rows of a round, the latency of a store to
// another GPU's memory. A thread carries one packet: two words, each with the message's number
// beside it, so that the receiver needs no fence and no second trip to know that they are there.

constexpr int kThreads = 256;
static_assert(kThreads * kPacketWords == kHopBlockWords);

__device__ uint32_t* word_at(const HopArgs& args, int64_t word) {
  for (int part = 0; part < args.num_parts; ++part) {
    if (word < args.words[part]) return args.parts[part] + word;
    word -= args.words[part];
  }
  return nullptr;
}

__global__ __launch_bounds__(kThreads) void send_kernel(const __grid_constant__ HopArgs args) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const uint32_t epoch = args.epochs[blockIdx.x] + 1;
  const int64_t packet = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const uint32_t* const first = word_at(args, packet * kPacketWords);
  const uint32_t* const second = word_at(args, packet * kPacketWords + 1);
  if (first != nullptr) {
    const uint32_t a = *first, b = second == nullptr ? 0 : *second;
    for (int i = 0; i < args.num_zones; ++i) {
      store_packet(static_cast<uint4*>(args.zones[i]) + packet, a, b, epoch);
    }
    if (args.copy != nullptr) {
      args.copy[packet * kPacketWords] = a;
      if (second != nullptr) args.copy[packet * kPacketWords + 1] = b;
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) args.epochs[blockIdx.x] = epoch;
}

__global__ __launch_bounds__(kThreads) void receive_kernel(const __grid_constant__ HopArgs args) {
  wait_for_earlier_work();
  // The matmul behind this one fetches its first weights while this one waits for the words.
  let_next_kernel_start();
  const uint32_t epoch = args.epochs[blockIdx.x] + 1;
  const int64_t packet = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  uint32_t* const first = word_at(args, packet * kPacketWords);
  uint32_t* const second = word_at(args, packet * kPacketWords + 1);
  if (first != nullptr) {
    // Zeros when told to give up: they may be rows' tokens, slots and sequences, which the kernels
    // behind this one still use.
    uint32_t a = 0, b = 0;
    take_packet(static_cast<const uint4*>(args.zones[0]) + packet, epoch, args.abort, a, b);
    *first = a;
    if (second != nullptr) *second = b;
  }
  __syncthreads();
  if (threadIdx.x == 0) args.epochs[blockIdx.x] = epoch;
}

int64_t all_words(const HopArgs& args) {
  int64_t words = 0;
  for (int part = 0; part < args.num_parts; ++part) words += args.words[part];
  return words;
}

dim3 grid(const HopArgs& args) { return dim3(static_cast<unsigned>(hop_blocks(all_words(args)))); }

}  // namespace

cudaError_t hop_send(const HopArgs& args, Launch launch) {
  return launch_kernel(send_kernel, grid(args), dim3(kThreads), 0, launch, args);
}

cudaError_t hop_receive(const HopArgs& args, Launch launch) {
  return launch_kernel(receive_kernel, grid(args), dim3(kThreads), 0, launch, args);
}

}  // namespace tandem::kernels
