#pragma once

#include "round.cuh"

namespace tandem::kernels {

// A cluster of blocks works on one row of a vocabulary: each on its slice of the ids, ascending.
// Where the device has no clusters the cluster is one block.

constexpr int kClusterBlocks = row_cluster_blocks(kFirstClusterCapability);

inline int cluster_blocks(const Launch& launch) { return row_cluster_blocks(launch.capability); }

/// Launches one cluster of kRowThreads threads a block for each of `rows` rows.
template <typename... Params, typename... Args>
cudaError_t launch_clusters(void (*kernel)(Params...), int rows, size_t shared_bytes,
                            const Launch& launch, Args... args) {
  const int blocks = cluster_blocks(launch);
  return launch_clustered(kernel, dim3(static_cast<unsigned>(blocks * rows)), dim3(kRowThreads),
                          shared_bytes, launch, blocks, args...);
}

/// What the blocks of a cluster tell each other, in the shared memory of each. Every value has two
/// places in turn, so that one barrier an exchange is enough.
struct Exchange {
  double warps[2][kRowWarps];
  double blocks[2][kClusterBlocks];
  int32_t id;
};

class RowCluster {
 public:
  __device__ explicit RowCluster(Exchange& exchange) : exchange_(exchange) {
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank_));
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size_));
#else
    rank_ = 0;
    size_ = 1;
#endif
  }
  __device__ int rank() const { return static_cast<int>(rank_); }
  __device__ int size() const { return static_cast<int>(size_); }
  __device__ int row() const { return static_cast<int>(blockIdx.x / size_); }
  /// First id of a block's slice of n ids, the end of the one before.
  __device__ int slice_begin(int rank, int n) const {
    const int length = (n + size() - 1) / size();
    return min(rank * length, n);
  }

  /// Every thread of the cluster arrives; what they wrote before is visible afterwards.
  __device__ void sync() const {
#if __CUDA_ARCH__ >= 900
    if (size_ > 1) {
      asm volatile("barrier.cluster.arrive.release;" ::: "memory");
      asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
      return;
    }
#endif
    __syncthreads();
  }

  /// The place in block `rank`'s shared memory that `place` is in this one's.
  template <typename T>
  __device__ T* at(T* place, int rank) const {
#if __CUDA_ARCH__ >= 900
    uint64_t address;
    asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(reinterpret_cast<uint64_t>(place)), "r"(rank));
    return reinterpret_cast<T*>(address);
#else
    return place;
#endif
  }

  /// Sum or maximum over the cluster's threads, the same on every thread and in every run.
  template <typename T, typename Combine>
  __device__ T reduce(T value, Combine combine) {
    value = reduce_in_block(value, combine);
    if (size_ > 1) {
      T* blocks = reinterpret_cast<T*>(exchange_.blocks[parity_]);
      if (threadIdx.x < size_) *at(blocks + rank_, static_cast<int>(threadIdx.x)) = value;
      sync();
      value = blocks[0];
      for (int rank = 1; rank < size(); ++rank) value = combine(value, blocks[rank]);
    }
    parity_ ^= 1;
    return value;
  }

  /// The sum over the threads of all blocks in front of this one.
  __device__ int sum_before(int value) {
    value = reduce_in_block(value, Plus());
    int before = 0;
    if (size_ > 1) {
      int* blocks = reinterpret_cast<int*>(exchange_.blocks[parity_]);
      if (threadIdx.x < size_) *at(blocks + rank_, static_cast<int>(threadIdx.x)) = value;
      sync();
      for (int rank = 0; rank < this->rank(); ++rank) before += blocks[rank];
    }
    parity_ ^= 1;
    return before;
  }

  /// Of `weight` over ids [0, n): the sum. Each warp of the cluster owns a run of ids.
  template <typename Weight>
  __device__ double sum(const Weight& weight, int n) {
    const int run = run_of(n), first = first_of(n);
    const int last = min(first + run, n);
    double mine = 0;
    for (int i = first + lane(); i < last; i += kWarpLanes) mine += weight(i);
#pragma unroll
    for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
      mine += __shfl_xor_sync(0xffffffffu, mine, offset);
    }
    warp_sums_ = exchange_.warps[parity_];
    block_sums_ = exchange_.blocks[parity_];
    if (lane() == 0) warp_sums_[warp()] = mine;
    __syncthreads();
    double block = 0;
    for (int w = 0; w < kRowWarps; ++w) block += warp_sums_[w];
    if (threadIdx.x < size_) *at(block_sums_ + rank_, static_cast<int>(threadIdx.x)) = block;
    sync();
    double total = 0;
    for (int rank = 0; rank < size(); ++rank) total += block_sums_[rank];
    parity_ ^= 1;
    return total;
  }

  /// The first id whose cumulated weight exceeds u * total, right after `total` was summed; never
  /// one of weight 0; -1 when all are 0.
  template <typename Weight>
  __device__ int32_t draw(const Weight& weight, int n, double total, double u) {
    const double target = u * total;
    if (threadIdx.x == 0) exchange_.id = -1;
    sync();
    // Block, then warp, whose share the target falls into; rounding may leave it to the last one
    // with weight.
    double base = 0;
    if (pick(block_sums_, size(), target, base) == rank() &&
        pick(warp_sums_, kRowWarps, target, base) == warp()) {
      const int32_t id = draw_in_run(weight, n, target, base);
      if (lane() < size()) *at(&exchange_.id, lane()) = id;
    }
    sync();
    return exchange_.id;
  }

 private:
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / kWarpLanes; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarpLanes; }
  __device__ int run_of(int n) const {
    const int warps = size() * kRowWarps;
    return (n + warps - 1) / warps;
  }
  __device__ int first_of(int n) const { return (rank() * kRowWarps + warp()) * run_of(n); }

  template <typename T, typename Combine>
  __device__ T reduce_in_block(T value, Combine combine) const {
    value = reduce_in_warp(value, combine);
    T* warps = reinterpret_cast<T*>(exchange_.warps[parity_]);
    if (lane() == 0) warps[warp()] = value;
    __syncthreads();
    return reduce_in_warp(warps[lane()], combine);
  }
  template <typename T, typename Combine>
  __device__ static T reduce_in_warp(T value, Combine combine) {
#pragma unroll
    for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
      value = combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    return value;
  }

  /// The first of `count` shares that lifts `before` beyond the target, or the last that is not 0,
  /// or -1; `before` becomes the sum of those in front of it.
  __device__ static int pick(const double* shares, int count, double target, double& before) {
    int chosen = -1;
    double sum = before;
    for (int i = 0; i < count; ++i) {
      if (!(shares[i] > 0)) continue;
      chosen = i;
      before = sum;
      sum += shares[i];
      if (sum > target) break;
    }
    return chosen;
  }

  /// A lane takes four ids that follow each other at a time.
  template <typename Weight>
  __device__ int32_t draw_in_run(const Weight& weight, int n, double target, double base) const {
    constexpr int kLaneIds = 4;
    int32_t found = -1, last_positive = -1;
    const int begin = first_of(n), end = min(begin + run_of(n), n);
    for (int first = begin; first < end && found < 0; first += kWarpLanes * kLaneIds) {
      const int own = first + lane() * kLaneIds;
      double weights[kLaneIds], mine = 0;
#pragma unroll
      for (int i = 0; i < kLaneIds; ++i) {
        weights[i] = own + i < end ? weight(own + i) : 0.0;
        mine += weights[i];
      }
      double until = mine;
#pragma unroll
      for (int offset = 1; offset < kWarpLanes; offset *= 2) {
        const double other = __shfl_up_sync(0xffffffffu, until, offset);
        if (lane() >= offset) until += other;
      }
      int32_t mine_found = -1, mine_positive = -1;
      double sum = base + (until - mine);
#pragma unroll
      for (int i = 0; i < kLaneIds; ++i) {
        sum += weights[i];
        if (!(weights[i] > 0)) continue;
        mine_positive = own + i;
        if (mine_found < 0 && sum > target) mine_found = own + i;
      }
      const uint32_t over = __ballot_sync(0xffffffffu, mine_found >= 0);
      const uint32_t positive = __ballot_sync(0xffffffffu, mine_positive >= 0);
      if (positive != 0) {
        last_positive =
            __shfl_sync(0xffffffffu, mine_positive, 31 - __clz(static_cast<int>(positive)));
      }
      if (over != 0) {
        found = __shfl_sync(0xffffffffu, mine_found, __ffs(static_cast<int>(over)) - 1);
      }
      base += __shfl_sync(0xffffffffu, until, kWarpLanes - 1);
    }
    return found >= 0 ? found : last_positive;
  }

  Exchange& exchange_;
  uint32_t rank_, size_;
  int parity_ = 0;
  double* warp_sums_ = nullptr;
  double* block_sums_ = nullptr;
};

}  // namespace tandem::kernels
