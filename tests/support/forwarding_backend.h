#pragma once

#include <memory>
#include <string>
#include <utility>

#include "backend/backend.h"

namespace tandem::test {

/// A backend that passes everything on to another one. Tests override single ops to break them.
class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}

  DeviceId device() const override { return inner_->device(); }
  std::string description() const override { return inner_->description(); }
  MemoryResource& memory() override { return inner_->memory(); }
  DType activation_dtype() const override { return inner_->activation_dtype(); }
  DType kv_dtype() const override { return inner_->kv_dtype(); }
  std::unique_ptr<Stream> make_stream() override { return inner_->make_stream(); }
  std::unique_ptr<Event> make_event() override { return inner_->make_event(); }
  std::unique_ptr<Graph> capture(Stream& stream, const std::function<void()>& work) override {
    return inner_->capture(stream, work);
  }
  bool works_beside_host() const override { return inner_->works_beside_host(); }
  HostBuffer make_host_buffer(size_t bytes) override { return inner_->make_host_buffer(bytes); }
  void begin_range(const char* name, int64_t number) override { inner_->begin_range(name, number); }
  void end_range() noexcept override { inner_->end_range(); }
  void copy_to_device(void* device, const void* host, size_t bytes, Stream& stream) override {
    inner_->copy_to_device(device, host, bytes, stream);
  }
  void copy_to_host(void* host, const void* device, size_t bytes, Stream& stream) override {
    inner_->copy_to_host(host, device, bytes, stream);
  }
  void copy(void* to, const void* from, size_t bytes, Stream& stream) override {
    inner_->copy(to, from, bytes, stream);
  }
  void fill_zero(void* data, size_t bytes, Stream& stream) override {
    inner_->fill_zero(data, bytes, stream);
  }
  WeightView load_weight(const WeightSpec& spec, std::span<const HostMatrix> segments,
                         std::span<const float> bias, void* destination, Stream& stream) override {
    return inner_->load_weight(spec, segments, bias, destination, stream);
  }
  void embed(const Rows& rows, const WeightView& table, TensorView hidden,
             Stream& stream) override {
    inner_->embed(rows, table, hidden, stream);
  }
  void rms_norm(TensorView x, TensorView weight, float eps, TensorView out,
                Stream& stream) override {
    inner_->rms_norm(x, weight, eps, out, stream);
  }
  void matmul(TensorView x, const WeightView& weight, Epilogue epilogue, TensorView out,
              Stream& stream) override {
    inner_->matmul(x, weight, epilogue, out, stream);
  }
  void matmul_add_norm(TensorView x, const WeightView& weight, TensorView hidden,
                       TensorView norm_weight, const NormedRows& normed, Stream& stream) override {
    inner_->matmul_add_norm(x, weight, hidden, norm_weight, normed, stream);
  }
  void matmul_normed(const NormedRows& x, const WeightView& weight, Epilogue epilogue,
                     TensorView out, Stream& stream) override {
    inner_->matmul_normed(x, weight, epilogue, out, stream);
  }
  void rope_angles(const Rows& rows, TensorView inv_freq, TensorView angles,
                   Stream& stream) override {
    inner_->rope_angles(rows, inv_freq, angles, stream);
  }
  void rope_and_append(const Rows& rows, TensorView qkv, TensorView angles, TensorView q_norm,
                       TensorView k_norm, float eps, int heads, const KvLayerView& cache,
                       Stream& stream) override {
    inner_->rope_and_append(rows, qkv, angles, q_norm, k_norm, eps, heads, cache, stream);
  }
  void attention(const Rows& rows, TensorView qkv, int heads, float scale, const KvLayerView& cache,
                 TensorView out, Stream& stream) override {
    inner_->attention(rows, qkv, heads, scale, cache, out, stream);
  }
  void append_and_attend(const Rows& rows, TensorView qkv, TensorView angles, TensorView q_norm,
                         TensorView k_norm, float eps, int heads, float scale,
                         const KvLayerView& cache, TensorView out, Stream& stream) override {
    inner_->append_and_attend(rows, qkv, angles, q_norm, k_norm, eps, heads, scale, cache, out,
                              stream);
  }
  void add(TensorView x, TensorView out, Stream& stream) override { inner_->add(x, out, stream); }
  void add_parts(TensorView parts, TensorView out, Stream& stream) override {
    inner_->add_parts(parts, out, stream);
  }
  void add_parts_norm(TensorView parts, TensorView hidden, TensorView norm_weight,
                      const NormedRows& normed, Stream& stream) override {
    inner_->add_parts_norm(parts, hidden, norm_weight, normed, stream);
  }
  void round_rows(const RoundView& round, int first, int cache_sequence, const Rows& rows,
                  Stream& stream) override {
    inner_->round_rows(round, first, cache_sequence, rows, stream);
  }
  void argmax(const RoundView& round, TensorView logits, const SamplingTransform& transform,
              int prefix, const uint8_t* allowed, int32_t* ids, Stream& stream) override {
    inner_->argmax(round, logits, transform, prefix, allowed, ids, stream);
  }
  void share_argmax(TensorView logits, int first_id, TensorView choices, Stream& stream) override {
    inner_->share_argmax(logits, first_id, choices, stream);
  }
  void join_argmax(TensorView choices, int32_t* ids, Stream& stream) override {
    inner_->join_argmax(choices, ids, stream);
  }
  void distribution(const RoundView& round, TensorView logits, const SamplingTransform& transform,
                    int prefix, const uint8_t* allowed, TensorView probs, Stream& stream) override {
    inner_->distribution(round, logits, transform, prefix, allowed, probs, stream);
  }
  void sample(const RoundView& round, TensorView probs, int first, RandomPurpose purpose,
              int32_t* ids, Stream& stream) override {
    inner_->sample(round, probs, first, purpose, ids, stream);
  }
  void gumbel_argmax(const RoundView& round, TensorView probs, int first, int32_t* ids,
                     Stream& stream) override {
    inner_->gumbel_argmax(round, probs, first, ids, stream);
  }
  void accept(const RoundView& round, AcceptRule rule, int num_drafts, Stream& stream) override {
    inner_->accept(round, rule, num_drafts, stream);
  }
  void expected_acceptance(const RoundView& round, int num_drafts, float* out,
                           Stream& stream) override {
    inner_->expected_acceptance(round, num_drafts, out, stream);
  }
  void commit(const RoundView& round, Stream& stream) override { inner_->commit(round, stream); }
  void log_probabilities(TensorView logits, const int32_t* ids, int top, float* logprobs,
                         int32_t* top_ids, float* top_logprobs, float* logsumexp,
                         Stream& stream) override {
    inner_->log_probabilities(logits, ids, top, logprobs, top_ids, top_logprobs, logsumexp, stream);
  }

 protected:
  Backend& inner() { return *inner_; }

 private:
  std::unique_ptr<Backend> inner_;
};

}  // namespace tandem::test
