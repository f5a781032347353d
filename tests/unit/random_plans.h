#pragma once

#include <cstdint>
#include <random>

#include "plan/planner.h"

namespace tandem::testing {

/// Draws small models, devices and requests of every kind: fitting and not, even and uneven, CPU
/// and GPU arithmetic.
class RandomPlans {
 public:
  explicit RandomPlans(uint64_t seed) : engine_(seed) {}

  PlanRequest next();
  /// Small overheads for the GPUs of these requests, so that they matter without drowning
  /// everything else.
  static OverheadHistory history();

  int between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  uint64_t up_to(uint64_t limit) {
    return std::uniform_int_distribution<uint64_t>(0, limit)(engine_);
  }
  bool chance(double probability) { return std::bernoulli_distribution(probability)(engine_); }

 private:
  ModelConfig model(int size, DeviceKind kind);
  PlannedModel planned(const char* role, ModelConfig config, DeviceKind kind);

  std::mt19937_64 engine_;
};

/// A model of these shapes, otherwise plain.
ModelConfig shape(int layers, int heads, int kv_heads, int head_dim, int intermediate, int vocab,
                  int context);

}  // namespace tandem::testing
