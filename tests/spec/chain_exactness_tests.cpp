#include "markov_exactness.h"
#include "support/catch.h"

using namespace tandem::test;

TEST_CASE("long texts follow the chain's law", "[exactness]") { check_chain_law({}); }

TEST_CASE("the windows see a wrong law", "[exactness][proof]") { check_chain_proof({}); }
