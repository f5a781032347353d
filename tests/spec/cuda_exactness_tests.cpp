#include "markov_exactness.h"
#include "ops/op_runner.h"
#include "support/catch.h"

using namespace tandem::test;

TEST_CASE("CUDA: long texts follow the chain's law", "[cuda]") {
  if (has_gpu()) check_chain_law(cuda_device());
}

TEST_CASE("CUDA: the windows see a wrong law", "[cuda]") {
  if (has_gpu()) check_chain_proof(cuda_device());
}
