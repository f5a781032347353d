#include "model/transformer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tandem/error.h"

namespace tandem {
namespace {

/// Checks what can be checked before anything is allocated.
void check_limits(const ModelConfig& config, const ModelShard& shard, const ModelLimits& limits,
                  const Backend& backend, const Communicator* communicator) {
  check_runs_on(config, backend.device().kind);
  shard.validate(config);
  if (limits.max_positions < 1 || limits.max_positions > config.max_position_embeddings) {
    throw UsageError(config.source + ": a context of " + std::to_string(limits.max_positions) +
                     " tokens was asked for; the model allows 1 to " +
                     std::to_string(config.max_position_embeddings));
  }
  if (limits.max_rows < 1 || limits.max_sequences < 1 || limits.pages < 0 ||
      limits.max_logits_rows < 0 || limits.max_logits_rows > limits.max_rows) {
    throw ShapeError(
        "model limits: rows, sequences and pages must be positive, logits rows at most the rows");
  }
  if ((communicator == nullptr ? 1 : communicator->size()) != shard.world_size ||
      (communicator == nullptr ? 0 : communicator->rank()) != shard.rank) {
    throw ShapeError("model shard: rank " + std::to_string(shard.rank) + " of " +
                     std::to_string(shard.world_size) + " does not fit its communicator");
  }
  if (size_of(backend.activation_dtype()) != size_of(activation_dtype(backend.device().kind)) ||
      size_of(backend.kv_dtype()) != size_of(kv_dtype(backend.device().kind))) {
    throw ShapeError("backend " + backend.description() +
                     " has other element sizes than memory is planned for");
  }
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, const ModelShard& shard, WeightSource& source,
                         Backend& backend, const Options& options, Communicator* communicator)
    : config_(config),
      shard_(shard),
      backend_(backend),
      communicator_(communicator),
      limits_(options.limits) {
  check_limits(config, shard, limits_, backend, communicator);
  check_weights(config, shard, source);
  const FormatOf formats = options.formats ? options.formats : formats_as_stored(source);
  const DeviceKind kind = backend.device().kind;
  MemoryResource& memory = backend.memory();
  weights_arena_ =
      Arena(memory, tandem::weights_bytes(config, shard, formats, kind), options.role + " weights");
  kv_arena_ =
      Arena(memory, tandem::kv_bytes(config, shard, limits_, kind), options.role + " KV cache");
  activations_arena_ =
      Arena(memory, tandem::activation_bytes(config, shard, formats, limits_, kind),
            options.role + " activations");
  logits_arena_ =
      Arena(memory, tandem::logits_bytes(config, shard, limits_), options.role + " logits");
  allocate_buffers();
  workspace_ = activations_arena_.take(
      DType::kU8,
      {static_cast<int64_t>(pass_workspace_bytes(config, shard, formats, limits_, kind))});

  const std::unique_ptr<Stream> stream = backend.make_stream();
  backend.lend_workspace(workspace_, *stream);
  cache_ = std::make_unique<KvCache>(config, shard, limits_.kv_size(), backend, kv_arena_, *stream);
  weights_ = load_weights(config, shard, formats, source, backend, weights_arena_, options.progress,
                          *stream);
  stream->synchronize();
}

void Transformer::allocate_buffers() {
  const BufferShapes shapes = buffer_shapes(config_, shard_, limits_, backend_.device().kind);
  const DType activation = backend_.activation_dtype();
  buffers_.hidden = activations_arena_.take(DType::kF32, shapes.hidden);
  buffers_.normed.values = activations_arena_.take(activation, shapes.normed);
  buffers_.normed.squares = activations_arena_.take(DType::kF32, shapes.squares);
  buffers_.normed.eps = config_.rms_norm_eps;
  buffers_.qkv = activations_arena_.take(activation, shapes.qkv);
  buffers_.mixed = activations_arena_.take(activation, shapes.mixed);
  buffers_.gated = activations_arena_.take(activation, shapes.gated);
  buffers_.angles = activations_arena_.take(DType::kF32, shapes.angles);
  buffers_.projected = activations_arena_.take(DType::kF32, shapes.projected);
  const TensorView gathered = activations_arena_.take(DType::kF32, shapes.gathered);
  peer_memory_ = activations_arena_.take(DType::kU8, shapes.peer_memory);
  if (shard_.split == Split::kTensor) {
    rank_sum_.emplace(backend_, *communicator_, gathered, peer_memory_);
  }
  shared_rows_ = activations_arena_.take(DType::kI32, shapes.shared_rows);
  logits_ = logits_arena_.take(DType::kF32, shapes.logits);
  shard_logits_ = logits_arena_.take(DType::kF32, shapes.shard_logits);
  choices_ = logits_arena_.take(DType::kI32, shapes.choices);
  gathered_choices_ = logits_arena_.take(DType::kI32, shapes.gathered_choices);
}

Transformer::Buffers Transformer::Buffers::first(int rows) const {
  const auto cut = [rows](const TensorView& view) {
    return view.count() > 0 ? view.rows(0, rows) : TensorView();
  };
  // Passes of more rows leave finished norms.
  const bool carries = normed.squares.count() > 0 && rows <= normed.squares.dim(0);
  return {
      cut(hidden), {cut(normed.values), carries ? cut(normed.squares) : TensorView(), normed.eps},
      cut(qkv),    cut(mixed),
      cut(gated),  cut(projected),
      cut(angles)};
}

void Transformer::reserve(int sequence, int tokens, Stream& stream) {
  cache_->reserve(sequence, tokens, stream);
}

void Transformer::truncate(int sequence, int tokens, Stream&) {
  cache_->truncate(sequence, tokens);
}

void Transformer::fork(int from, int to, int tokens, Stream& stream) {
  cache_->fork(from, to, tokens, stream);
}

double Transformer::measure_rank_sum(Stream& stream) {
  return rank_sum_->measure(buffers_.projected, buffers_.hidden, stream);
}

void Transformer::check_pass(int rows, int first_logits_row) const {
  if (rows < 1 || rows > limits_.max_rows) {
    throw ShapeError("forward: " + std::to_string(rows) +
                     " rows; this model was planned for 1 to " + std::to_string(limits_.max_rows));
  }
  if (first_logits_row < 0 || first_logits_row > rows) {
    throw ShapeError("forward: logits from row " + std::to_string(first_logits_row) + " of " +
                     std::to_string(rows));
  }
  if (rows - first_logits_row > limits_.logits_rows()) {
    throw ShapeError("forward: logits of " + std::to_string(rows - first_logits_row) +
                     " rows; this model was planned for " + std::to_string(limits_.logits_rows()));
  }
}

TensorView Transformer::forward(const Rows& given, int first_logits_row, Stream& stream) {
  check_pass(given.count, first_logits_row);
  const Buffers b = run_body(given, stream);
  if (!shard_.has_head || first_logits_row == given.count) return {};
  const TensorView logits = run_head(b, first_logits_row, stream);  // (rows - first, vocab)
  return shard_.split == Split::kTensor ? gather_logits(logits.dim(0), stream) : logits;
}

void Transformer::forward_argmax(const Rows& given, int first_row, int32_t* ids, Stream& stream) {
  if (shard_.split != Split::kTensor) {
    LanguageModel::forward_argmax(given, first_row, ids, stream);
    return;
  }
  check_pass(given.count, first_row);
  const int64_t count = given.count - first_row;
  const Buffers b = run_body(given, stream);
  if (count == 0) return;
  const TensorView logits = run_head(b, first_row, stream);  // (rows - first, share)
  const TensorView choices = choices_.rows(0, count);        // (rows - first, 2)
  const TensorView gathered = gathered_choices_.rows(0, shard_.world_size * count)
                                  .reshaped({shard_.world_size, count, choices.dim(1)});
  backend_.share_argmax(logits, static_cast<int>(shard_.vocab.begin), choices, stream);
  rank_sum_->join_argmax(choices, gathered, ids, stream);
}

Transformer::Buffers Transformer::run_body(const Rows& given, Stream& stream) {
  backend_.lend_workspace(workspace_, stream);
  const Rows rows = share_rows(given, stream);
  const Buffers b = buffers_.first(rows.count);
  embed(rows, b, stream);                                           // (rows, hidden)
  backend_.rope_angles(rows, weights_.inv_freq, b.angles, stream);  // (rows, head_dim)
  run_layers(rows, b, stream);
  if (!shard_.has_head) hand_on(b, stream);
  return b;
}

void Transformer::run_layers(const Rows& rows, const Buffers& b, Stream& stream) {
  const std::vector<LayerWeights>& layers = weights_.layers;
  if (layers.empty()) return;
  NormedRows normed = b.normed;  // as the rank in front, or the sum of the embeddings left it
  if (shard_.has_embedding && shard_.split != Split::kTensor) {
    normed.squares = {};
    backend_.rms_norm(b.hidden, layers[0].attention_norm, normed.eps, normed.values, stream);
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const bool is_last = i + 1 == layers.size();
    run_layer(layers[i], normed, is_last ? weights_.next_norm : layers[i + 1].attention_norm, rows,
              b, stream);
    normed = b.normed;
  }
}

void Transformer::run_layer(const LayerWeights& w, const NormedRows& normed,
                            const TensorView& next_norm, const Rows& rows, const Buffers& b,
                            Stream& stream) {
  const int heads = static_cast<int>(shard_.heads.size());
  const float eps = config_.rms_norm_eps, scale = config_.attention_scale;
  const KvLayerView& cache = cache_->layer(w.index);

  // The shape of each result stands behind it; w.qkv gives q, k and v side by side.
  backend_.matmul_normed(normed, w.qkv, Epilogue::kStore, b.qkv, stream);  // (rows, q + k + v)
  backend_.append_and_attend(rows, b.qkv, b.angles, w.q_norm, w.k_norm, eps, heads, scale, cache,
                             b.mixed, stream);               // (rows, q)
  add_projection(b.mixed, w.output, w.mlp_norm, b, stream);  // (rows, hidden)

  backend_.matmul_normed(b.normed, w.gate_up, Epilogue::kSiluGate, b.gated, stream);  // (rows, mlp)
  add_projection(b.gated, w.down, next_norm, b, stream);  // (rows, hidden)
}

void Transformer::add_projection(TensorView x, const WeightView& weight,
                                 const TensorView& next_norm, const Buffers& b, Stream& stream) {
  if (shard_.split != Split::kTensor) {
    if (next_norm.empty()) {
      backend_.matmul(x, weight, Epilogue::kAdd, b.hidden, stream);
    } else {
      backend_.matmul_add_norm(x, weight, b.hidden, next_norm, b.normed, stream);
    }
    return;
  }
  backend_.matmul(x, weight, Epilogue::kStore, b.projected, stream);
  if (next_norm.empty()) {
    rank_sum_->add(b.projected, b.hidden, stream);
  } else {
    rank_sum_->add_norm(b.projected, b.hidden, next_norm, b.normed, stream);
  }
}

void Transformer::embed(const Rows& rows, const Buffers& b, Stream& stream) {
  if (!shard_.has_embedding) {
    const int before = shard_.rank - 1;
    if (is_linked(rows.count)) {
      link_->receive_hidden(std::array{b.hidden, b.normed.values, b.normed.squares}, stream);
      return;
    }
    communicator_->recv(b.hidden, before, stream);
    communicator_->recv(b.normed.values, before, stream);
    communicator_->recv(b.normed.squares, before, stream);
    return;
  }
  if (shard_.split != Split::kTensor) {
    backend_.embed(rows, weights_.embedding, b.hidden, stream);
    return;
  }
  // A rank that does not hold a token's row contributes zeros.
  backend_.embed(rows, weights_.embedding, b.projected, stream);
  backend_.fill_zero(b.hidden.data(), b.hidden.bytes(), stream);
  rank_sum_->add_norm(b.projected, b.hidden, weights_.layers[0].attention_norm, b.normed, stream);
}

void Transformer::hand_on(const Buffers& b, Stream& stream) {
  // With the norm that the last layer carried along: made anew, it would be rounded otherwise.
  if (is_linked(b.hidden.dim(0))) {
    link_->send_hidden(std::array{b.hidden, b.normed.values, b.normed.squares}, stream);
    return;
  }
  const int next = shard_.rank + 1;
  communicator_->send(b.hidden, next, stream);
  communicator_->send(b.normed.values, next, stream);
  communicator_->send(b.normed.squares, next, stream);
}

TensorView Transformer::run_head(const Buffers& b, int first_row, Stream& stream) {
  const int64_t count = b.hidden.dim(0) - first_row;
  const TensorView normed = b.normed.values.rows(0, count);
  backend_.rms_norm(b.hidden.rows(first_row, count), weights_.final_norm, config_.rms_norm_eps,
                    normed, stream);
  if (shard_.split != Split::kTensor) {
    const TensorView logits = logits_.rows(0, count);
    backend_.matmul(normed, weights_.head, Epilogue::kStore, logits, stream);
    return logits;
  }
  const int64_t share = shard_.vocab.size();
  const int64_t begin = shard_.rank * logits_place(config_, shard_.world_size, count);
  const TensorView logits = shard_logits_.rows(begin, count * share).reshaped({count, share});
  backend_.matmul(normed, weights_.head, Epilogue::kStore, logits, stream);
  return logits;
}

TensorView Transformer::gather_logits(int64_t count, Stream& stream) {
  // The others do not need them, but nothing else of this split goes from one rank to one other:
  // NCCL takes much memory for every pair that talks.
  const int64_t place = logits_place(config_, shard_.world_size, count);
  communicator_->all_gather(shard_logits_.rows(shard_.rank * place, place),
                            shard_logits_.rows(0, shard_.world_size * place), stream);
  if (!shard_.is_leader()) return {};
  for (int rank = 0; rank < shard_.world_size; ++rank) {
    const Range share = ModelShard::vocab_share(config_.vocab_size, rank, shard_.world_size);
    const TensorView part =
        shard_logits_.rows(rank * place, count * share.size()).reshaped({count, share.size()});
    for (int64_t row = 0; row < count; ++row) {
      float* const target = logits_.as<float>() + row * config_.vocab_size + share.begin;
      const TensorView source = part.rows(row, 1);
      backend_.copy(target, source.data(), source.bytes(), stream);
    }
  }
  return logits_.rows(0, count);
}

Rows Transformer::share_rows(const Rows& given, Stream& stream) {
  if (shard_.world_size == 1) return given;
  const int64_t count = given.count;
  Rows shared{given.count, shared_rows_.rows(0, count), shared_rows_.rows(count, count),
              shared_rows_.rows(2 * count, count), shared_rows_.rows(3 * count, count)};
  const TensorView values = shared_rows_.rows(0, kRowFields * count);
  if (is_linked(count)) {
    if (shard_.is_leader()) {
      const auto cut = [count](const TensorView& field) { return field.rows(0, count); };
      link_->share_rows(std::array{cut(given.tokens), cut(given.positions), cut(given.slots),
                                   cut(given.sequences)},
                        values, stream);
    } else {
      link_->receive_rows(values, stream);
    }
    return shared;
  }
  if (shard_.is_leader()) {
    const auto bytes = static_cast<size_t>(count) * sizeof(int32_t);
    backend_.copy(shared.tokens.data(), given.tokens.data(), bytes, stream);
    backend_.copy(shared.positions.data(), given.positions.data(), bytes, stream);
    backend_.copy(shared.slots.data(), given.slots.data(), bytes, stream);
    backend_.copy(shared.sequences.data(), given.sequences.data(), bytes, stream);
  }
  if (rank_sum_) {
    rank_sum_->broadcast(values, shard_.leader(), stream);
  } else {
    communicator_->broadcast(values, shard_.leader(), stream);
  }
  return shared;
}

}  // namespace tandem
