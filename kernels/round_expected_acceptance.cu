#include "round.cuh"

namespace tandem::kernels {
namespace {

// out[s, i] = sum over x of min(p(x), q(x)) at draft i; p of the drafted token without q. One block
// for each draft and sequence. Bound: reads of the rows' probabilities from L2.

struct Common {
  const float* p;
  const float* q;
  __device__ double operator()(int id) const { return static_cast<double>(fminf(p[id], q[id])); }
};

__global__ __launch_bounds__(kRowThreads) void expected_acceptance_kernel(
    const __grid_constant__ RoundArgs round, float* out) {
  __shared__ Drawing shared;
  let_next_kernel_start();
  wait_for_earlier_work();
  const int i = static_cast<int>(blockIdx.x), s = static_cast<int>(blockIdx.y);
  const int64_t row = static_cast<int64_t>(s) * round.max_drafts + i;
  const float* p =
      round.main_probs + (static_cast<int64_t>(s) * (round.max_drafts + 1) + i) * round.vocab;
  const double sum =
      round.draft_probs == nullptr
          ? static_cast<double>(p[round.drafts[row]])
          : sum_weights(Common{p, round.draft_probs + row * round.vocab}, round.vocab, shared);
  if (threadIdx.x == 0) out[row] = static_cast<float>(sum);
}

}  // namespace

cudaError_t expected_acceptance(const RoundArgs& round, int num_drafts, float* out, Launch launch) {
  const dim3 grid(static_cast<unsigned>(num_drafts), static_cast<unsigned>(round.sequences));
  return launch_kernel(expected_acceptance_kernel, grid, dim3(kRowThreads), 0, launch, round, out);
}

}  // namespace tandem::kernels
