// bench_comm: sums over GPUs as decoding needs them, captured in a graph, in three ways: NCCL's
// all-reduce, NCCL's all-gather with a sum in rank order, and the exchange over peer memory.
//
//   bench_comm [NUMBER OF GPUS] [OUT.jsonl]
//
// Times are of one sum, the least of several replays of a graph of many, on rank 0. The last two
// must give the same bits.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "backend/peer_exchange.h"
#include "comm/nccl_communicator.h"
#include "tandem/error.h"

namespace {

using namespace tandem;

constexpr int64_t kMaxFloats = 65536;
constexpr int kSums = 64, kReplays = 20;

struct Rank {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Stream> stream;
  DeviceBuffer memory;
  TensorView terms, out, gathered, peer_memory;
  std::unique_ptr<Communicator> communicator;
  std::unique_ptr<PeerExchange> peers;
};

TensorView floats_at(const DeviceBuffer& memory, int64_t first, int64_t count) {
  return TensorView(static_cast<float*>(memory.data()) + first, DType::kF32, {count},
                    memory.device());
}

std::vector<Rank> make_ranks(int count) {
  std::vector<Rank> ranks(static_cast<size_t>(count));
  std::vector<PeerMember> members;
  std::vector<int> devices;
  const int64_t peer_bytes = peer_memory_bytes(DeviceKind::kCuda, count, kMaxFloats);
  for (int i = 0; i < count; ++i) {
    Rank& rank = ranks[static_cast<size_t>(i)];
    rank.backend = make_backend(parse_device("cuda:" + std::to_string(i)));
    rank.stream = rank.backend->make_stream();
    const int64_t floats = kMaxFloats * (2 + count);
    rank.memory = DeviceBuffer(
        rank.backend->memory(),
        static_cast<size_t>(floats) * sizeof(float) + static_cast<size_t>(peer_bytes), "bench");
    rank.terms = floats_at(rank.memory, 0, kMaxFloats);
    rank.out = floats_at(rank.memory, kMaxFloats, kMaxFloats);
    rank.gathered = floats_at(rank.memory, 2 * kMaxFloats, kMaxFloats * count);
    rank.peer_memory = TensorView(static_cast<float*>(rank.memory.data()) + floats, DType::kU8,
                                  {peer_bytes}, rank.backend->device());
    members.push_back({rank.backend.get(), rank.peer_memory});
    devices.push_back(i);
  }
  auto communicators = make_nccl_communicators(draw_nccl_id(), count, 0, devices, Traffic::kSums);
  auto peers = join_peers(members, kMaxFloats);
  for (size_t i = 0; i < ranks.size(); ++i) {
    ranks[i].communicator = std::move(communicators[i]);
    if (!peers.empty()) ranks[i].peers = std::move(peers[i]);
  }
  return ranks;
}

/// Runs `work` for every rank on a thread of its own.
void on_all(std::vector<Rank>& ranks, const std::function<void(size_t)>& work) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < ranks.size(); ++i) threads.emplace_back([&work, i] { work(i); });
  for (std::thread& thread : threads) thread.join();
}

enum class Way { kAllReduce, kGather, kPeer };

void sum(Rank& rank, Way way, int64_t count) {
  const TensorView terms = rank.terms.rows(0, count), out = rank.out.rows(0, count);
  switch (way) {
    case Way::kAllReduce:
      return rank.communicator->all_reduce_sum(terms, *rank.stream);
    case Way::kGather: {
      const TensorView gathered = rank.gathered.rows(0, count * rank.communicator->size());
      rank.communicator->all_gather(terms, gathered, *rank.stream);
      return rank.backend->add_parts(gathered, out, *rank.stream);
    }
    case Way::kPeer:
      return rank.peers->add(terms, out, *rank.stream);
  }
}

void fill(std::vector<Rank>& ranks, int64_t count) {
  on_all(ranks, [&](size_t i) {
    std::vector<float> values(static_cast<size_t>(count));
    for (size_t k = 0; k < values.size(); ++k) {
      values[k] = static_cast<float>((k * 2654435761u + i * 40503u) % 1000003u) * 1e-5f - 5.0f;
    }
    Rank& rank = ranks[i];
    rank.backend->copy_to_device(rank.terms.data(), values.data(), values.size() * sizeof(float),
                                 *rank.stream);
    rank.backend->fill_zero(rank.out.data(), values.size() * sizeof(float), *rank.stream);
    rank.stream->synchronize();
  });
}

double seconds_of(std::vector<Rank>& ranks, Way way, int64_t count) {
  double least = 0;
  on_all(ranks, [&](size_t i) {
    Rank& rank = ranks[i];
    const auto graph = rank.backend->capture(*rank.stream, [&] {
      for (int k = 0; k < kSums; ++k) sum(rank, way, count);
    });
    const auto begin = rank.backend->make_event(), end = rank.backend->make_event();
    for (int replay = 0; replay < kReplays; ++replay) {
      rank.stream->record(*begin);
      graph->launch(*rank.stream);
      rank.stream->record(*end);
      rank.stream->synchronize();
      const double seconds = end->seconds_since(*begin) / kSums;
      if (i == 0) least = replay == 0 ? seconds : std::min(least, seconds);
    }
  });
  return least;
}

std::vector<std::vector<float>> results_of(std::vector<Rank>& ranks, Way way, int64_t count) {
  fill(ranks, count);
  std::vector<std::vector<float>> results(ranks.size(),
                                          std::vector<float>(static_cast<size_t>(count)));
  on_all(ranks, [&](size_t i) {
    Rank& rank = ranks[i];
    constexpr int kRepeats = 3;
    for (int k = 0; k < kRepeats; ++k) sum(rank, way, count);
    rank.backend->copy_to_host(results[i].data(), rank.out.data(),
                               results[i].size() * sizeof(float), *rank.stream);
    rank.stream->synchronize();
  });
  return results;
}

bool same_bits(std::vector<Rank>& ranks, int64_t count) {
  const auto gathered = results_of(ranks, Way::kGather, count);
  const auto peer = results_of(ranks, Way::kPeer, count);
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (std::memcmp(gathered[i].data(), gathered[0].data(), bytes) != 0) return false;
    if (std::memcmp(peer[i].data(), gathered[0].data(), bytes) != 0) return false;
  }
  return true;
}

int run(int count, const char* path) {
  std::vector<Rank> ranks = make_ranks(count);
  const bool peers = ranks.front().peers != nullptr;
  std::FILE* const out = path == nullptr ? nullptr : std::fopen(path, "w");
  constexpr double kMicroseconds = 1e6;
  constexpr int64_t kFloatsPerKib = 256;
  std::printf("%d x %s%s\n", count, ranks.front().backend->description().c_str(),
              peers ? "" : "; they do not reach each other's memory");
  std::printf("  KiB  NCCL all-reduce  all-gather + sum      peer   (us)\n");
  bool same = true;
  for (const int64_t kib : {4, 16, 32, 64, 128, 256}) {
    const int64_t floats = kib * kFloatsPerKib;
    fill(ranks, floats);
    const double reduce = seconds_of(ranks, Way::kAllReduce, floats) * kMicroseconds;
    const double gather = seconds_of(ranks, Way::kGather, floats) * kMicroseconds;
    const double peer = peers ? seconds_of(ranks, Way::kPeer, floats) * kMicroseconds : 0;
    const bool equal = !peers || same_bits(ranks, floats);
    same = same && equal;
    std::printf("%5lld  %15.2f  %16.2f  %8.2f   %s\n", static_cast<long long>(kib), reduce, gather,
                peer, equal ? "same bits" : "BITS DIFFER");
    if (out != nullptr) {
      std::fprintf(out,
                   "{\"gpus\": %d, \"kib\": %lld, \"nccl_all_reduce_us\": %.2f, "
                   "\"all_gather_sum_us\": %.2f, \"peer_us\": %.2f, \"same_bits\": %s}\n",
                   count, static_cast<long long>(kib), reduce, gather, peer,
                   equal ? "true" : "false");
    }
  }
  if (out != nullptr) std::fclose(out);
  return same ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kDefaultGpus = 2;
  try {
    return run(argc > 1 ? std::atoi(argv[1]) : kDefaultGpus, argc > 2 ? argv[2] : nullptr);
  } catch (const Error& error) {
    std::fprintf(stderr, "bench_comm: %s\n", error.what());
    return 1;
  }
}
