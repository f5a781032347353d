#pragma once

#include <cstdint>
#include <filesystem>

namespace tandem::bench {

/// Copies a model's folder and spoils its matrices, for drafts that are worse than the original.
/// Every weight w of a matrix becomes (1 - noise) w + noise s g, s the matrix's root mean square
/// and g standard normal, keyed by `seed`, tensor and element: noise 0 is the model itself, noise 1
/// a model of random weights. Vectors (the norms) stay. Reads one-file bfloat16 checkpoints.
/// @throws ModelError when the folder holds no such checkpoint
void write_noisy_model(const std::filesystem::path& model, const std::filesystem::path& to,
                       double noise, uint64_t seed);

}  // namespace tandem::bench
