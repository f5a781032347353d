#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "backend/round_view.h"
#include "backend/rows.h"
#include "backend/weight_view.h"
#include "core/memory.h"
#include "core/philox.h"
#include "core/stream.h"
#include "core/tensor_view.h"

namespace tandem {

/// What `Backend::matmul` does with its sums.
enum class Epilogue : uint8_t {
  kStore,     ///< out  = x W^T + bias
  kAdd,       ///< out += x W^T + bias        (the residual stream; out is float32)
  kSiluGate,  ///< out  = silu(g) * u, where W is a paired weight (gate, up); out has rows / 2
              ///< columns
};

/// The fused operations of one device, and copies, events and capture on it.
///
/// Width invariance (DESIGN 4): for 1 … 16 rows, an op gives a row the same bits whatever rows
/// travel with it. All pointers are device memory. Ops are ordered by their stream and may return
/// before the work is done. Activations (`normed`, `qkv`, …) have `activation_dtype()`; hidden
/// states, logits and probabilities are float32. Threads: a backend serves one thread at a time
/// (its worker); `memory()` may be used from any thread.
/// @throws ShapeError when shapes or types do not fit together; DeviceError when the device fails.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual DeviceId device() const = 0;
  virtual std::string description() const = 0;  ///< "cpu:0, 2 threads, AVX-512"
  virtual MemoryResource& memory() = 0;
  virtual DType activation_dtype() const = 0;
  virtual DType kv_dtype() const = 0;

  // Streams, copies, capture
  // ---------------------------------------------------------------------------------------
  virtual std::unique_ptr<Stream> make_stream() = 0;
  virtual std::unique_ptr<Event> make_event() = 0;
  virtual std::unique_ptr<Graph> capture(Stream& stream, const std::function<void()>& work) = 0;
  /// True when queued work runs while the host goes on; false when it is done on return.
  virtual bool works_beside_host() const = 0;
  /// @throws MemoryError when the host has no such memory left
  virtual HostBuffer make_host_buffer(size_t bytes) = 0;
  virtual void copy_to_device(void* device, const void* host, size_t bytes, Stream& stream) = 0;
  virtual void copy_to_host(void* host, const void* device, size_t bytes, Stream& stream) = 0;
  /// Either side may lie on another device of this kind: see `open_peers`.
  virtual void copy(void* to, const void* from, size_t bytes, Stream& stream) = 0;
  virtual void fill_zero(void* data, size_t bytes, Stream& stream) = 0;

  /// Names what the calling thread queues from here to `end_range`, for profilers. Ranges nest.
  /// @param number tells ranges of one name apart: a round's number, say
  virtual void begin_range(const char* name, int64_t number) = 0;
  virtual void end_range() noexcept = 0;
  /// Gives the ops that follow on `stream` memory to work in, in place of what was given before; it
  /// must outlive them. Wide products are faster with `matmul_workspace_bytes` of it, and give the
  /// same bits in every run that gives as much. Attention without `attention_workspace_bytes` of it
  /// takes memory of its own. Backends that need none ignore it.
  virtual void lend_workspace(TensorView /*memory*/, Stream& /*stream*/) {}

  // Weights
  // --------------------------------------------------------------------------------------------------------
  /// Packs host matrices (one per segment, in order) and an optional bias (rows() floats) into
  /// `destination`, which holds `packed_weight_bytes(device().kind, spec)` bytes, and returns the
  /// view the ops take.
  virtual WeightView load_weight(const WeightSpec& spec, std::span<const HostMatrix> segments,
                                 std::span<const float> bias, void* destination,
                                 Stream& stream) = 0;

  // The forward
  // ----------------------------------------------------------------------------------------------------
  /// hidden[r] = row tokens[r] - first_row of the table; ids that it does not hold give a zero row.
  ///                                                                          hidden (rows, d) f32
  virtual void embed(const Rows& rows, const WeightView& table, TensorView hidden,
                     Stream& stream) = 0;
  /// out = x / sqrt(mean(x^2) + eps) * weight                         x (rows, d) f32, weight (d)
  /// f32, out (rows, d)
  virtual void rms_norm(TensorView x, TensorView weight, float eps, TensorView out,
                        Stream& stream) = 0;
  /// x (rows, cols) activations or f32; out (rows, W.rows) activations or f32
  virtual void matmul(TensorView x, const WeightView& weight, Epilogue epilogue, TensorView out,
                      Stream& stream) = 0;
  /// hidden += x W^T + bias, then normed = the RMS norm of hidden, for `matmul_normed`: a backend
  /// may leave the rows' factors to that and note in `squares` what it needs for them.
  ///                          x (rows, cols), hidden (rows, d) f32, norm_weight (d) f32
  virtual void matmul_add_norm(TensorView x, const WeightView& weight, TensorView hidden,
                               TensorView norm_weight, const NormedRows& normed,
                               Stream& stream) = 0;
  /// `matmul` of the same rows as `matmul_add_norm` left them
  virtual void matmul_normed(const NormedRows& x, const WeightView& weight, Epilogue epilogue,
                             TensorView out, Stream& stream) = 0;
  /// angles[r] = cos then sin of position[r] * inv_freq[i]       inv_freq (head_dim / 2) f32,
  /// angles (rows, head_dim) f32
  virtual void rope_angles(const Rows& rows, TensorView inv_freq, TensorView angles,
                           Stream& stream) = 0;
  /// Rotates q and k (pair i is elements i and i + head_dim / 2), after an RMS norm over each head
  /// where q_norm/k_norm (head_dim) are not empty; writes q back into qkv and appends k and v at
  /// each row's slot.
  ///                                                   qkv (rows, (heads + 2 kv_heads) * head_dim),
  ///                                                   angles (rows, head_dim)
  virtual void rope_and_append(const Rows& rows, TensorView qkv, TensorView angles,
                               TensorView q_norm, TensorView k_norm, float eps, int heads,
                               const KvLayerView& cache, Stream& stream) = 0;
  /// Causal attention of row r over slots [0, slot[r]] of its sequence, scores scaled by `scale`;
  /// query head h reads kv head h / (heads / kv_heads). The cache is cut into parts of fixed size,
  /// combined in ascending order.
  ///                                                                              out (rows, heads
  ///                                                                              * head_dim)
  virtual void attention(const Rows& rows, TensorView qkv, int heads, float scale,
                         const KvLayerView& cache, TensorView out, Stream& stream) = 0;
  /// `rope_and_append`, then `attention`, with the same bits in the cache and in `out`; what is
  /// left in qkv is undefined.
  virtual void append_and_attend(const Rows& rows, TensorView qkv, TensorView angles,
                                 TensorView q_norm, TensorView k_norm, float eps, int heads,
                                 float scale, const KvLayerView& cache, TensorView out,
                                 Stream& stream) = 0;
  /// out[i] += x[i], float32
  virtual void add(TensorView x, TensorView out, Stream& stream) = 0;
  /// out[i] += parts[0][i] + parts[1][i] + …, the parts added up in this order first: what the
  /// ranks of a tensor split computed.                        parts (ranks, out.count()) f32, out
  /// f32
  virtual void add_parts(TensorView parts, TensorView out, Stream& stream) = 0;
  /// `add_parts` to hidden, then normed = the RMS norm of hidden, as `matmul_add_norm` leaves it.
  /// A round's rows: at most 16.           hidden (rows, d) f32, d a multiple of NormedRows::kPart
  virtual void add_parts_norm(TensorView parts, TensorView hidden, TensorView norm_weight,
                              const NormedRows& normed, Stream& stream) = 0;

  // The round
  // ------------------------------------------------------------------------------------------------------
  /// For i < rows.count: p = length + first + i; rows.positions = rows.slots = p; rows.tokens =
  /// history[p] if first + i <= 0, else drafts[first + i - 1]; rows.sequences = cache_sequence.
  /// `first` is -1 for a draft's catch-up, 0 for verification. Positions below 0 are clamped to 0
  /// (a prompt of one token).
  virtual void round_rows(const RoundView& round, int first, int cache_sequence, const Rows& rows,
                          Stream& stream) = 0;
  /// ids[r] = the smallest id with the largest logit among those with allowed[id] != 0 (null: all),
  /// after penalties. Row r sees the drafts d_1 … d_{prefix + r} besides the committed tokens.
  /// logits (rows, n) f32, n <= or > V; ids >= V are never chosen.
  virtual void argmax(const RoundView& round, TensorView logits, const SamplingTransform& transform,
                      int prefix, const uint8_t* allowed, int32_t* ids, Stream& stream) = 0;
  /// What `join_argmax` needs of logits that are one rank's share of a vocabulary, from id
  /// `first_id` on: in choices[r] the bits of row r's largest, and its id, the smallest of equals.
  ///                                     logits (rows, n) f32, choices (rows, 2) i32
  virtual void share_argmax(TensorView logits, int first_id, TensorView choices,
                            Stream& stream) = 0;
  /// ids[r] = what `argmax` gives, without penalties or mask, of row r of all shares side by side,
  /// which are in the order of their ids.                    choices (shares, rows, 2) i32
  virtual void join_argmax(TensorView choices, int32_t* ids, Stream& stream) = 0;
  /// probs[r] = the distribution of row r after the transforms, over ids 0 … V - 1; ids the logits
  /// lack or `allowed` forbids have probability exactly 0. Prefix as above. logits (rows, n) f32,
  /// probs (rows, V) f32
  virtual void distribution(const RoundView& round, TensorView logits,
                            const SamplingTransform& transform, int prefix, const uint8_t* allowed,
                            TensorView probs, Stream& stream) = 0;
  /// ids[r] drawn from probs[r] by inverse transform with one uniform keyed by (length + first + r,
  /// round base, purpose).
  virtual void sample(const RoundView& round, TensorView probs, int first, RandomPurpose purpose,
                      int32_t* ids, Stream& stream) = 0;
  /// ids[r] = argmax over id of log probs[r][id] + Gumbel noise keyed by (length + first + r, 0,
  /// id): the same noise for draft and main. `length + first + r` is the position that the drawn
  /// token will have.
  virtual void gumbel_argmax(const RoundView& round, TensorView probs, int first, int32_t* ids,
                             Stream& stream) = 0;
  /// Writes output and count from K drafts by the rule.
  virtual void accept(const RoundView& round, AcceptRule rule, int num_drafts, Stream& stream) = 0;
  /// out[i] = sum over x of min(p(x), q(x)) at draft i, where p and q are what `rejection` compares
  /// there: the probability that it accepts whatever the draft draws (Leviathan et al. 2022,
  /// theorem 3.5). Where every draft was certain that is p of the drafted token. Needs main_probs.
  ///                                                                        out (S, K_max) f32
  virtual void expected_acceptance(const RoundView& round, int num_drafts, float* out,
                                   Stream& stream) = 0;
  /// history[length + 1 + i] = output[i], output_counts updated, length += count; count and output
  /// also go to the place in `results` of round number `rounds`, which is counted up.
  virtual void commit(const RoundView& round, Stream& stream) = 0;
  /// logprobs[r] = log softmax(logits[r])[ids[r]]; the `top` largest and their ids, descending,
  /// ties to the lower id; and the log-sum-exp.         logits (rows, n), ids (rows) may be null,
  /// top_ids/top_logprobs (rows, top), logsumexp (rows)
  virtual void log_probabilities(TensorView logits, const int32_t* ids, int top, float* logprobs,
                                 int32_t* top_ids, float* top_logprobs, float* logsumexp,
                                 Stream& stream) = 0;
};

/// A profiler's range over a scope.
class ProfileRange {
 public:
  ProfileRange(Backend& backend, const char* name, int64_t number) : backend_(backend) {
    backend_.begin_range(name, number);
  }
  ~ProfileRange() { backend_.end_range(); }
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;

 private:
  Backend& backend_;
};

/// Bytes that `load_weight` needs on a device of this kind; pure arithmetic, for plans.
uint64_t packed_weight_bytes(DeviceKind kind, const WeightSpec& spec);

/// Bytes of `lend_workspace` that products of up to `max_rows` rows with the weight can use on a
/// device of this kind; pure arithmetic, for plans.
uint64_t matmul_workspace_bytes(DeviceKind kind, int max_rows, const WeightSpec& spec);

/// Bytes of `lend_workspace` that the attention of few rows works in on any device of this kind,
/// over sequences of at most so many slots of the cache; pure arithmetic, for plans.
uint64_t attention_workspace_bytes(DeviceKind kind, int heads, int head_dim, int slots);

/// Head sizes that the attention of a kind of device takes; empty: any.
std::span<const int> attention_head_dims(DeviceKind kind);
bool attention_takes(DeviceKind kind, int head_dim);

/// Makes the backend of a device. `threads` is for the CPU: 0 means all cores the process may use.
/// @throws UsageError when this build or machine has no such device
std::unique_ptr<Backend> make_backend(const DeviceSpec& device, int threads = 0);

/// The devices of this machine and build: its GPUs, then cpu:0. Makes no driver context.
std::vector<DeviceId> list_device_ids();

/// What `tandem devices` lists.
struct DeviceInfo {
  DeviceId id;
  std::string name;
  uint64_t capacity_bytes = 0;
  uint64_t free_bytes = 0;
  /// Whether this process has a driver context there, so that what the context took is missing from
  /// `free_bytes` already. Asking a GPU for its free bytes makes one.
  bool has_context = false;
};

/// Those of the devices that exist, in the order given. GPUs that are not among them are left
/// alone, and without any among them so is the driver.
std::vector<DeviceInfo> describe_devices(std::span<const DeviceId> ids);

/// All of them. Makes a driver context on each GPU.
std::vector<DeviceInfo> list_devices();

}  // namespace tandem
