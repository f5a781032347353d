#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "core/dtype.h"
#include "model/safetensors.h"
#include "tandem/error.h"

/// The bytes are a safetensors file. Only tandem::Error may escape, and an accepted header must
/// keep every tensor inside the file.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto bytes = std::as_bytes(std::span(data, size));
    for (const auto& [name, entry] : tandem::parse_safetensors(bytes, "fuzz.safetensors")) {
      if (entry.begin > entry.end || entry.end > size) std::abort();
      uint64_t elements = 1;
      for (const int64_t dim : entry.shape) elements *= static_cast<uint64_t>(dim);
      if (entry.dtype && elements * tandem::size_of(*entry.dtype) != entry.end - entry.begin)
        std::abort();
    }
  } catch (const tandem::Error&) {
  }
  return 0;
}
