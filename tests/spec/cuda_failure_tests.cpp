// What becomes of a GPU that has no memory left, and of one that fails: an error that names the
// call, the device and what to do, nothing that hangs, and objects that can still be destroyed.

#include <algorithm>

#include "demo_pair.h"
#include "ops/op_runner.h"
#include "support/catch.h"
#include "tandem/error.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Kind = DecodeRule::Kind;

}  // namespace

TEST_CASE("CUDA: a full device refuses by name and works again when there is room", "[cuda]") {
  if (!has_gpu()) return;
  const DecodeSettings settings = demo_settings(Kind::kGreedy, 4, 0);
  const Tokens prompt = demo_prompts()[0];
  const Tokens expected =
      DemoPair(PairDrafter::kModel, cuda_device()).generate(prompt, settings, 50);
  const auto backend = make_backend(cuda_device(), 1);
  {
    constexpr uint64_t kLeft = 16 << 20;  // less than the pair needs
    const uint64_t free = backend->memory().free_bytes();
    const DeviceBuffer filler(backend->memory(), free - kLeft, "filler");
    CHECK_THROWS_WITH(DeviceBuffer(backend->memory(), free, "too much"),
                      ContainsText("cuda:0: too much needs ") && ContainsText(" short"));
    CHECK_THROWS_AS(DemoPair(PairDrafter::kModel, cuda_device()), MemoryError);
  }
  CHECK(DemoPair(PairDrafter::kModel, cuda_device()).generate(prompt, settings, 50) == expected);
}

// The last one: a kernel that touches memory it does not own takes the device away from the
// process.
TEST_CASE("CUDA: a failed device ends texts with an error and lets everything go", "[cuda]") {
  if (!has_gpu()) return;
  DemoPair pair(PairDrafter::kModel, cuda_device());
  const DecodeSettings settings = demo_settings(Kind::kGreedy, 4, 0);
  const Tokens prompt = demo_prompts()[0];
  pair.generate(prompt, settings, 20);
  pair.decoder().restart(settings);
  pair.decoder().round(100);  // and one is queued behind it
  {
    OpRunner run(cuda_device());
    void* const address = reinterpret_cast<void*>(uintptr_t{kDeviceAlignment});  // no one's
    const TensorView nowhere(address, DType::kF32, {256}, run.backend->device());
    run.backend->add(nowhere, nowhere, *run.stream);
    CHECK_THROWS_WITH(run.stream->synchronize(),
                      ContainsText("cuda:0: cudaStreamSynchronize failed: ") && ContainsText("; "));
  }
  const auto decode = [&] {
    for (int round = 0; round < 3; ++round) pair.decoder().round(100);
  };
  CHECK_THROWS_AS(decode(), DeviceError);
  CHECK_THROWS_AS(pair.decoder().round(100), UsageError);  // the text has ended
  CHECK_THROWS_AS(pair.decoder().start(prompt, settings), DeviceError);
  CHECK_THROWS_AS(DemoPair(PairDrafter::kModel, cuda_device()), Error);
}
