#include "random_plans.h"

#include <array>

namespace tandem::testing {
namespace {

constexpr const char* kHardware = "small GPU";

}  // namespace

ModelConfig shape(int layers, int heads, int kv_heads, int head_dim, int intermediate, int vocab,
                  int context) {
  ModelConfig config;
  config.source = "test/config.json";
  config.family = &families().front();
  config.num_layers = layers;
  config.num_heads = heads;
  config.num_kv_heads = kv_heads;
  config.head_dim = head_dim;
  config.hidden_size = heads * head_dim;
  config.intermediate_size = intermediate;
  config.vocab_size = vocab;
  config.max_position_embeddings = context;
  config.rms_norm_eps = 1e-5f;
  return config;
}

ModelConfig RandomPlans::model(int size, DeviceKind kind) {
  const std::array kHeadDims =
      kind == DeviceKind::kCpu ? std::array{4, 8, 16, 64} : std::array{32, 64, 96, 128};
  const int kv_heads = between(1, 6);
  ModelConfig config = shape(between(1, 6 * size), kv_heads * between(1, 4), kv_heads,
                             kHeadDims[static_cast<size_t>(between(0, 3))], between(1, 700),
                             between(1, 1500), 1 << between(3, 13));
  const auto all = families();
  config.family = &all[static_cast<size_t>(between(0, static_cast<int>(all.size()) - 1))];
  config.tie_word_embeddings = chance(0.5);
  config.qkv_bias = chance(0.3);
  config.output_bias = chance(0.3);
  config.mlp_bias = chance(0.2);
  config.qk_norm = chance(0.3);
  return config;
}

PlannedModel RandomPlans::planned(const char* role, ModelConfig config, DeviceKind kind) {
  constexpr std::array kFormats = {WeightFormat::kBF16, WeightFormat::kF32, WeightFormat::kFp8E4M3,
                                   WeightFormat::kInt4Group128};
  PlannedModel model;
  model.role = role;
  model.max_rows = between(1, 64);
  model.max_logits_rows = between(1, 9);
  const auto vocab = static_cast<uint64_t>(config.vocab_size);
  model.round_state_bytes = [vocab](int positions) {
    return vocab * 16 + static_cast<uint64_t>(positions) * 4;
  };
  // Part of the above, as it is in earnest.
  model.round_copy_bytes = [vocab](int positions) {
    return vocab * 9 + static_cast<uint64_t>(positions) * 4;
  };
  if (chance(0.3)) {
    // As a checkpoint of mixed precision: the norms and one layer's projections differ from the
    // rest.
    model.formats = [](std::string_view tensor) {
      return tensor.find(".0.") != std::string_view::npos ? WeightFormat::kF32
                                                          : WeightFormat::kBF16;
    };
  } else {
    // Quantised weights are for GPUs.
    const int last = kind == DeviceKind::kCuda ? static_cast<int>(kFormats.size()) - 1 : 1;
    model.formats = formats_all(kFormats[static_cast<size_t>(between(0, last))]);
  }
  model.config = std::move(config);
  return model;
}

OverheadHistory RandomPlans::history() {
  OverheadHistory history;
  history.record({kHardware, MemoryPurpose::kContext, 1}, 30'000);
  history.record({kHardware, MemoryPurpose::kWorkspaces, 1}, 4'000);
  history.record({kHardware, MemoryPurpose::kGraphs, 1}, 2'000);
  for (int ranks = 2; ranks <= 5; ++ranks) {
    history.record({kHardware, MemoryPurpose::kCommunicator, ranks, Split::kTensor},
                   static_cast<uint64_t>(10'000 * ranks));
    history.record({kHardware, MemoryPurpose::kCommunicator, ranks, Split::kLayer},
                   static_cast<uint64_t>(7'000 * ranks));
  }
  return history;
}

PlanRequest RandomPlans::next() {
  PlanRequest request;
  const DeviceKind kind = chance(0.5) ? DeviceKind::kCpu : DeviceKind::kCuda;
  request.main = planned("main", model(3, kind), kind);
  if (chance(0.7)) request.draft = planned("draft", model(1, kind), kind);
  const int devices = between(1, 5);
  // Around what the models need, so that about half of the plans fit.
  const ModelShard whole = ModelShard::whole(request.main.config);
  const uint64_t weights = weights_bytes(request.main.config, whole, request.main.formats, kind);
  const uint64_t scale =
      weights * static_cast<uint64_t>(between(2, 40)) / static_cast<uint64_t>(8 * devices) +
      200'000;
  const bool even = chance(0.5);
  for (int index = 0; index < devices; ++index) {
    PlanDevice device;
    device.id = {kind, index};
    device.hardware = kHardware;
    device.capacity_bytes = even ? scale : scale / 4 + up_to(scale * 3 / 2);
    device.free_bytes = chance(0.7) ? device.capacity_bytes : up_to(device.capacity_bytes);
    if (chance(0.5)) device.reserve_bytes = up_to(scale / 8);
    if (chance(0.2)) device.limit_bytes = up_to(device.capacity_bytes * 5 / 4);
    request.devices.push_back(device);
    if (index == 0 || chance(0.9)) request.main_devices.push_back(static_cast<size_t>(index));
  }
  request.choose_devices = chance(0.6);
  if (request.draft && chance(0.4))
    request.draft_device = static_cast<size_t>(between(0, devices - 1));
  request.split = static_cast<SplitChoice>(between(0, 2));
  if (chance(0.5)) request.max_model_len = between(1, request.main.config.max_position_embeddings);
  return request;
}

}  // namespace tandem::testing
