#include "driver_calls.h"

#include <cstddef>

namespace tandem::test {
namespace {
DriverCalls calls;
}
DriverCalls driver_calls() { return calls; }
}  // namespace tandem::test

// Handles are pointers and enumerations integers to the linker, so that no CUDA header is needed.
// It sends every call of `name` to `__wrap_name`, and calls of `__real_name` to the runtime.
#define TANDEM_COUNT(counter, name, parameters, arguments) \
  extern "C" {                                             \
  int __real_##name parameters;                            \
  int __wrap_##name parameters;                            \
  int __wrap_##name parameters {                           \
    ++tandem::test::calls.counter;                         \
    return __real_##name arguments;                        \
  }                                                        \
  }

TANDEM_COUNT(allocations, cudaMalloc, (void** data, size_t bytes), (data, bytes))
TANDEM_COUNT(allocations, cudaFree, (void* data), (data))
TANDEM_COUNT(allocations, cudaHostAlloc, (void** data, size_t bytes, unsigned int flags),
             (data, bytes, flags))
TANDEM_COUNT(allocations, cudaFreeHost, (void* data), (data))
TANDEM_COUNT(allocations, cudaGraphInstantiate,
             (void** exec, void* graph, unsigned long long flags), (exec, graph, flags))
TANDEM_COUNT(event_waits, cudaEventSynchronize, (void* event), (event))
TANDEM_COUNT(other_waits, cudaStreamSynchronize, (void* stream), (stream))
TANDEM_COUNT(other_waits, cudaDeviceSynchronize, (void), ())
TANDEM_COUNT(other_waits, cudaMemcpy, (void* to, const void* from, size_t bytes, int kind),
             (to, from, bytes, kind))
TANDEM_COUNT(graph_launches, cudaGraphLaunch, (void* exec, void* stream), (exec, stream))
