#include "model/model_memory.h"

#include <algorithm>
#include <string>

#include "backend/peer_exchange.h"
#include "backend/rows.h"
#include "core/memory.h"
#include "model/rank_sum.h"
#include "tandem/error.h"

namespace tandem {

KvCacheSize ModelLimits::kv_size() const {
  KvCacheSize size{.max_positions = max_positions, .max_sequences = max_sequences, .pages = pages};
  if (size.pages == 0) size.pages = size.full_pages();
  return size;
}

DType activation_dtype(DeviceKind kind) {
  return kind == DeviceKind::kCpu ? DType::kF32 : DType::kBF16;
}

DType kv_dtype(DeviceKind kind) { return kind == DeviceKind::kCpu ? DType::kF32 : DType::kBF16; }

uint64_t kv_bytes(const ModelConfig& config, const ModelShard& shard, const ModelLimits& limits,
                  DeviceKind kind) {
  return KvCache::bytes(config, shard, limits.kv_size(), kv_dtype(kind));
}

BufferShapes buffer_shapes(const ModelConfig& config, const ModelShard& shard,
                           const ModelLimits& limits, DeviceKind kind) {
  const int64_t rows = limits.max_rows;
  const int64_t head_dim = config.head_dim;
  const bool tensor = shard.split == Split::kTensor;
  BufferShapes shapes;
  shapes.hidden = {rows, config.hidden_size};
  shapes.normed = {rows, config.hidden_size};
  const int64_t gathered = tensor ? std::min<int64_t>(rows, RankSum::kGatheredRows) : 0;
  // Sums over ranks leave norms of so many rows, in whole parts.
  const int64_t summed = config.hidden_size % NormedRows::kPart == 0 ? gathered : 0;
  shapes.squares = {tensor ? summed : rows, NormedRows::parts(config.hidden_size)};
  shapes.qkv = {rows, (shard.heads.size() + 2 * shard.kv_heads.size()) * head_dim};
  shapes.mixed = {rows, shard.heads.size() * head_dim};
  shapes.gated = {rows, shard.mlp.size()};
  shapes.angles = {rows, head_dim};
  shapes.projected = {tensor ? rows : 0, config.hidden_size};
  shapes.gathered = {shard.world_size * gathered, config.hidden_size};
  shapes.peer_memory = {
      tensor ? peer_memory_bytes(kind, shard.world_size, gathered * config.hidden_size)
      : shard.split == Split::kLayer
          ? link_memory_bytes(kind, shard.world_size, link_words(config, limits, kind))
          : 0};
  shapes.shared_rows = {shard.world_size > 1 ? kRowFields * rows : 0};

  const int64_t logits_rows = shard.has_head ? limits.logits_rows() : 0;
  shapes.logits = {shard.is_leader() ? logits_rows : 0, config.vocab_size};
  shapes.shard_logits = {
      tensor ? shard.world_size * logits_place(config, shard.world_size, logits_rows) : 0};
  constexpr int kChoiceWords = 2;  // a logit and its id
  shapes.choices = {tensor ? logits_rows : 0, kChoiceWords};
  shapes.gathered_choices = {shard.world_size * shapes.choices[0], kChoiceWords};
  return shapes;
}

int64_t logits_place(const ModelConfig& config, int ranks, int64_t rows) {
  constexpr auto kAligned = static_cast<int64_t>(kDeviceAlignment / sizeof(float));
  const int64_t largest = ModelShard::vocab_share(config.vocab_size, 0, ranks).size();
  return (rows * largest + kAligned - 1) / kAligned * kAligned;
}

LinkWords link_words(const ModelConfig& config, const ModelLimits& limits, DeviceKind kind) {
  const int64_t rows = std::min<int64_t>(limits.max_rows, RankSum::kGatheredRows);
  const auto words = [&](int64_t columns, DType dtype) {
    return rows * columns * static_cast<int64_t>(size_of(dtype)) /
           static_cast<int64_t>(sizeof(uint32_t));
  };
  return {.rows = words(kRowFields, DType::kI32),
          .hidden = words(config.hidden_size, DType::kF32) +
                    words(config.hidden_size, activation_dtype(kind)) +
                    words(NormedRows::parts(config.hidden_size), DType::kF32)};
}

uint64_t pass_workspace_bytes(const ModelConfig& config, const ModelShard& shard,
                              const FormatOf& formats, const ModelLimits& limits, DeviceKind kind) {
  const int slots = limits.kv_size().max_pages() * kPageTokens;
  return std::max(
      workspace_bytes(config, shard, formats, limits.max_rows, limits.logits_rows(), kind),
      attention_workspace_bytes(kind, static_cast<int>(shard.heads.size()), config.head_dim,
                                slots));
}

void check_runs_on(const ModelConfig& config, DeviceKind kind) {
  if (attention_takes(kind, config.head_dim)) return;
  std::string taken;
  for (const int head_dim : attention_head_dims(kind)) {
    taken += (taken.empty() ? "" : ", ") + std::to_string(head_dim);
  }
  throw ModelError(config.source + ": head_dim is " + std::to_string(config.head_dim) +
                   "; attention on a GPU takes " + taken + ": use device 'cpu' for this model");
}

uint64_t activation_bytes(const ModelConfig& config, const ModelShard& shard,
                          const FormatOf& formats, const ModelLimits& limits, DeviceKind kind) {
  const BufferShapes shapes = buffer_shapes(config, shard, limits, kind);
  const DType activation = activation_dtype(kind);
  return ArenaSize()
      .add(DType::kF32, shapes.hidden)
      .add(activation, shapes.normed)
      .add(DType::kF32, shapes.squares)
      .add(activation, shapes.qkv)
      .add(activation, shapes.mixed)
      .add(activation, shapes.gated)
      .add(DType::kF32, shapes.angles)
      .add(DType::kF32, shapes.projected)
      .add(DType::kF32, shapes.gathered)
      .add(DType::kU8, shapes.peer_memory)
      .add(DType::kI32, shapes.shared_rows)
      .add_bytes(pass_workspace_bytes(config, shard, formats, limits, kind))
      .bytes();
}

uint64_t logits_bytes(const ModelConfig& config, const ModelShard& shard,
                      const ModelLimits& limits) {
  // Logits take the same on every kind of device.
  const BufferShapes shapes = buffer_shapes(config, shard, limits, DeviceKind::kCpu);
  return ArenaSize()
      .add(DType::kF32, shapes.logits)
      .add(DType::kF32, shapes.shard_logits)
      .add(DType::kI32, shapes.choices)
      .add(DType::kI32, shapes.gathered_choices)
      .bytes();
}

}  // namespace tandem
