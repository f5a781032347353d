#include <algorithm>
#include <array>

#include "backend/backend.h"
#include "kernels/attention_layout.h"
#include "kernels/capability.h"
#include "model/model_memory.h"
#include "random_plans.h"
#include "support/catch.h"

namespace tandem {
namespace {

using kernels::attention_partial_floats;

constexpr std::array kCapabilities = {80, 86, 87, 89, 90, 100, 103, 110, 120, 121};

TEST_CASE("Kernels overlap and form clusters from compute capability 9.0 on") {
  for (const int capability : kCapabilities) {
    CAPTURE(capability);
    const bool has_clusters = capability >= 90;
    CHECK(kernels::can_overlap(capability) == has_clusters);
    CHECK(kernels::row_cluster_blocks(capability) == (has_clusters ? 8 : 1));
    CHECK(kernels::blocks_of_part(capability) == (has_clusters ? 2 : 1));
  }
}

TEST_CASE("A ring has as many stages as the shared memory of a capability holds") {
  for (const int few : {80, 86, 87, 89, 120, 121}) CHECK(kernels::stages_of(few) == 2);
  for (const int many : {90, 100, 103, 110}) CHECK(kernels::stages_of(many) == 4);
}

TEST_CASE("Parts of the decode attention are half as many where two blocks share one") {
  for (const int head_dim : kernels::kAttentionHeadDims) {
    const int slots = kernels::block_slots(head_dim);
    CHECK(slots == (head_dim > 128 ? 128 : 256));
    CHECK(kernels::parts_of(1, slots) == 1);
    CHECK(kernels::parts_of(slots, slots) == 1);
    CHECK(kernels::parts_of(slots + 1, slots) == 2);
  }
  // 16 rows of 32 heads of 128 over 131,072 slots: 512 parts of one block, 256 of two.
  CHECK(attention_partial_floats(32, 128, 131072, 1) == int64_t{16} * 32 * 512 * 130);
  CHECK(2 * attention_partial_floats(32, 128, 131072, 2) ==
        attention_partial_floats(32, 128, 131072, 1));
}

TEST_CASE("Planned attention has room on devices of every capability") {
  for (const int head_dim : kernels::kAttentionHeadDims) {
    for (const int slots : {32, 256, 2048, 131072}) {
      const uint64_t planned = attention_workspace_bytes(DeviceKind::kCuda, 24, head_dim, slots);
      for (const int capability : kCapabilities) {
        const int64_t floats =
            attention_partial_floats(24, head_dim, slots, kernels::blocks_of_part(capability));
        CHECK(static_cast<uint64_t>(floats) * sizeof(float) <= planned);
      }
    }
  }
  CHECK(attention_workspace_bytes(DeviceKind::kCpu, 24, 128, 131072) == 0);
}

TEST_CASE("A pass works in what its products or its attention need, whichever is more") {
  const ModelConfig config = testing::shape(2, 32, 8, 128, 1024, 2000, 131072);
  const ModelShard whole = ModelShard::whole(config);
  const auto needed = [&](WeightFormat format, int positions, DeviceKind kind) {
    return pass_workspace_bytes(config, whole, formats_all(format),
                                {.max_positions = positions, .max_rows = 512}, kind);
  };
  const auto attention = [](int slots) {
    return attention_workspace_bytes(DeviceKind::kCuda, 32, 128, slots);
  };
  // The library takes no 4-bit weights.
  CHECK(needed(WeightFormat::kInt4Group128, 131072, DeviceKind::kCuda) == attention(131072));
  CHECK(needed(WeightFormat::kInt4Group128, 2001, DeviceKind::kCuda) == attention(2016));
  CHECK(needed(WeightFormat::kBF16, 131072, DeviceKind::kCuda) == attention(131072));
  CHECK(needed(WeightFormat::kBF16, 2048, DeviceKind::kCuda) > attention(2048));
  CHECK(needed(WeightFormat::kBF16, 131072, DeviceKind::kCpu) == 0);
  // They do not add up.
  CHECK(needed(WeightFormat::kBF16, 2048, DeviceKind::kCuda) ==
        needed(WeightFormat::kBF16, 32, DeviceKind::kCuda));
}

TEST_CASE("Attention on a GPU takes some head sizes, on the CPU all") {
  for (const int head_dim : {32, 64, 96, 128, 256}) {
    CHECK(attention_takes(DeviceKind::kCuda, head_dim));
  }
  for (const int head_dim : {16, 80, 100, 112, 120, 160, 192, 512}) {
    CHECK_FALSE(attention_takes(DeviceKind::kCuda, head_dim));
    CHECK(attention_takes(DeviceKind::kCpu, head_dim));
  }
}

}  // namespace
}  // namespace tandem
