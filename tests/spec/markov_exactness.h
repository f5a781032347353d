#pragma once

#include "core/device.h"

namespace tandem::test {

/// Exactness through the real loop with captured rounds, on any device: long texts of a Markov
/// chain, cut into windows of three tokens, against the chain's law. Given the token before it, a
/// window is an independent draw of the joint law of its tokens. At least 10^5 windows for each
/// rule, K and draft; significance 1e-6 a test; seeds are fixed, so a run that passes once passes
/// always.
void check_chain_law(const DeviceSpec& device);

/// That the windows see numbers used again in every round, and a distribution that is a little off.
void check_chain_proof(const DeviceSpec& device);

}  // namespace tandem::test
