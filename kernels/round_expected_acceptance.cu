#include "row_cluster.cuh"

namespace tandem::kernels {
namespace {

// out[s, i] = sum over x of min(p(x), q(x)) at draft i; p of the drafted token without q. One
// cluster for each draft and sequence. Bound: reads of the rows' probabilities from L2.

struct Common {
  const float* p;
  const float* q;
  __device__ double operator()(int id) const { return static_cast<double>(fminf(p[id], q[id])); }
};

__global__ __launch_bounds__(kRowThreads) void expected_acceptance_kernel(
    const __grid_constant__ RoundArgs round, int num_drafts, float* out) {
  __shared__ Exchange exchange;
  RowCluster cluster(exchange);
  let_next_kernel_start();
  cluster.sync();  // every block is there before others write into it
  wait_for_earlier_work();
  const int i = cluster.row() % num_drafts, s = cluster.row() / num_drafts;
  const int64_t row = static_cast<int64_t>(s) * round.max_drafts + i;
  const float* p =
      round.main_probs + (static_cast<int64_t>(s) * (round.max_drafts + 1) + i) * round.vocab;
  const double sum =
      round.draft_probs == nullptr
          ? static_cast<double>(p[round.drafts[row]])
          : cluster.sum(Common{p, round.draft_probs + row * round.vocab}, round.vocab);
  if (cluster.rank() == 0 && threadIdx.x == 0) out[row] = static_cast<float>(sum);
}

}  // namespace

cudaError_t expected_acceptance(const RoundArgs& round, int num_drafts, float* out, Launch launch) {
  return launch_clusters(expected_acceptance_kernel, num_drafts * round.sequences, 0, launch, round,
                         num_drafts, out);
}

}  // namespace tandem::kernels
