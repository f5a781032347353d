#include "row_cluster.cuh"

namespace tandem::kernels {
namespace {

// Draws by inverse transform, and the rules of acceptance. One cluster for each row or sequence.
// Bound: reads of the rows' probabilities from L2.

/// What is left for the token after the accepted ones: scale * p - q where positive. A certain
/// draft has no q: it is 1 at the drafted id, where nothing is left.
struct Residual {
  const float* p;
  const float* q;
  int32_t drafted;
  double scale;
  __device__ double operator()(int id) const {
    if (q == nullptr) return id == drafted ? 0.0 : scale * static_cast<double>(p[id]);
    return fmax(scale * static_cast<double>(p[id]) - static_cast<double>(q[id]), 0.0);
  }
};
struct Plain {
  const float* p;
  __device__ double operator()(int id) const { return static_cast<double>(p[id]); }
};

__global__ __launch_bounds__(kRowThreads) void sample_kernel(
    const __grid_constant__ RoundArgs round, const float* probs, int rows, int first,
    Purpose purpose, int32_t* ids) {
  __shared__ Exchange exchange;
  RowCluster cluster(exchange);
  let_next_kernel_start();
  cluster.sync();  // every block is there before others write into it
  wait_for_earlier_work();
  const int row = cluster.row(), per_sequence = rows / round.sequences, s = row / per_sequence;
  const Plain weight{probs + static_cast<int64_t>(row) * round.vocab};
  const double u = round_uniform(round, s, round.length[s] + first + row % per_sequence, purpose);
  const double total = cluster.sum(weight, round.vocab);
  const int32_t id = cluster.draw(weight, round.vocab, total, u);
  if (cluster.rank() == 0 && threadIdx.x == 0) ids[row] = max(id, 0);
}

__global__ void accept_exact_kernel(const __grid_constant__ RoundArgs round, int num_drafts) {
  let_next_kernel_start();
  wait_for_earlier_work();
  const int s = blockIdx.x;
  const auto i = static_cast<int>(threadIdx.x);
  const int32_t* drafts = round.drafts + static_cast<int64_t>(s) * round.max_drafts;
  const int32_t* tokens = round.main_tokens + static_cast<int64_t>(s) * (round.max_drafts + 1);
  const bool differs = i >= num_drafts || drafts[i] != tokens[i];
  const int accepted = __ffs(static_cast<int>(__ballot_sync(0xffffffffu, differs))) - 1;
  if (i <= accepted) {
    round.output[static_cast<int64_t>(s) * (round.max_drafts + 1) + i] = tokens[i];
  }
  if (i == 0) round.count[s] = accepted + 1;
}

/// A sequence's round as the rules see it; draft i of the papers is i - 1 here.
class Judge {
 public:
  __device__ Judge(const RoundArgs& round, int sequence, int num_drafts, RowCluster& cluster)
      : round_(round),
        sequence_(sequence),
        num_drafts_(num_drafts),
        drafts_(round.drafts + static_cast<int64_t>(sequence) * round.max_drafts),
        cluster_(cluster) {}

  /// Leviathan et al. 2022, algorithm 1; Chen et al. 2023, algorithm 2.
  __device__ void reject() {
    int accepted = 0;
    while (accepted < num_drafts_ &&
           uniform(accepted, Purpose::kAccept) * q_drafted(accepted) < p_drafted(accepted)) {
      ++accepted;
    }
    next_token(accepted, 1.0);
  }

  /// Sun et al. 2024, algorithm 2: from K down to the largest i with eta_i <= h_i.
  __device__ void block() {
    double weights[kMostDrafts + 1];
    weights[0] = 1;
    for (int i = 0; i < num_drafts_; ++i) {
      const double weight = weights[i] * (p_drafted(i) / q_drafted(i));
      weights[i + 1] = weight < 1 ? weight : 1.0;
    }
    int accepted = num_drafts_;
    while (accepted > 0 &&
           !(uniform(accepted - 1, Purpose::kAccept) <= threshold(accepted, weights[accepted]))) {
      --accepted;
    }
    next_token(accepted, weights[accepted]);
  }

 private:
  __device__ const float* p(int i) const {
    return round_.main_probs +
           (static_cast<int64_t>(sequence_) * (round_.max_drafts + 1) + i) * round_.vocab;
  }
  __device__ const float* q(int i) const {
    return round_.draft_probs == nullptr
               ? nullptr
               : round_.draft_probs +
                     (static_cast<int64_t>(sequence_) * round_.max_drafts + i) * round_.vocab;
  }
  __device__ double p_drafted(int i) const { return p(i)[drafts_[i]]; }
  __device__ double q_drafted(int i) const {
    return round_.draft_probs == nullptr ? 1.0 : static_cast<double>(q(i)[drafts_[i]]);
  }
  __device__ double uniform(int i, Purpose purpose) const {
    return round_uniform(round_, sequence_, round_.length[sequence_] + 1 + i, purpose);
  }
  __device__ Residual residual(int i, double scale) const {
    return {p(i), q(i), drafts_[i], scale};
  }

  __device__ double threshold(int i, double weight) {
    if (i == num_drafts_) return weight;
    const double left = cluster_.sum(residual(i, weight), round_.vocab);
    return left > 0 ? left / (left + (1 - weight)) : 0;
  }

  __device__ void next_token(int accepted, double scale) {
    int32_t* output = round_.output + static_cast<int64_t>(sequence_) * (round_.max_drafts + 1);
    const double u = uniform(accepted, Purpose::kResidual);
    int32_t token = -1;
    if (accepted < num_drafts_) {
      const Residual weight = residual(accepted, scale);
      const double total = cluster_.sum(weight, round_.vocab);
      token = cluster_.draw(weight, round_.vocab, total, u);
    }
    // Nothing is left only where rounding alone made the rule refuse: p and q are one law there.
    if (token < 0) {
      const Plain weight{p(accepted)};
      const double total = cluster_.sum(weight, round_.vocab);
      token = cluster_.draw(weight, round_.vocab, total, u);
    }
    if (cluster_.rank() != 0) return;
    const auto i = static_cast<int>(threadIdx.x);
    if (i < accepted) output[i] = drafts_[i];
    if (i == 0) {
      output[accepted] = max(token, 0);
      round_.count[sequence_] = accepted + 1;
    }
  }

  const RoundArgs& round_;
  int sequence_;
  int num_drafts_;
  const int32_t* drafts_;
  RowCluster& cluster_;
};

__global__ __launch_bounds__(kRowThreads) void accept_kernel(
    const __grid_constant__ RoundArgs round, Rule rule, int num_drafts) {
  __shared__ Exchange exchange;
  RowCluster cluster(exchange);
  let_next_kernel_start();
  cluster.sync();  // every block is there before others write into it
  wait_for_earlier_work();
  Judge judge(round, cluster.row(), num_drafts, cluster);
  if (rule == Rule::kRejection) {
    judge.reject();
  } else {
    judge.block();
  }
}

}  // namespace

cudaError_t sample(const RoundArgs& round, const float* probs, int rows, int first, Purpose purpose,
                   int32_t* ids, Launch launch) {
  return launch_clusters(sample_kernel, rows, 0, launch, round, probs, rows, first, purpose, ids);
}

cudaError_t accept(const RoundArgs& round, Rule rule, int num_drafts, Launch launch) {
  if (rule == Rule::kExact) {
    const dim3 grid(static_cast<unsigned>(round.sequences));
    return launch_kernel(accept_exact_kernel, grid, dim3(kWarpLanes), 0, launch, round, num_drafts);
  }
  return launch_clusters(accept_kernel, round.sequences, 0, launch, round, rule, num_drafts);
}

}  // namespace tandem::kernels
