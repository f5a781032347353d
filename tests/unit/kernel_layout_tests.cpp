#include <array>

#include "kernels/capability.h"
#include "support/catch.h"

namespace tandem {
namespace {

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

}  // namespace
}  // namespace tandem
