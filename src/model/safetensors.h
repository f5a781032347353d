#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace tandem {

/// One tensor of a safetensors file: where it lies and what it is.
struct SafetensorsEntry {
  std::string dtype_name;  ///< as written: "BF16"
  std::optional<DType>
      dtype;  ///< f32, f16 or bf16; none: a type whose elements cannot be read here
  std::vector<int64_t> shape;
  uint64_t begin = 0;  ///< bytes from the start of the file
  uint64_t end = 0;
};

using SafetensorsHeader = std::map<std::string, SafetensorsEntry, std::less<>>;

/// Reads and checks the header of a safetensors file: eight bytes of little-endian header length, a
/// JSON object of tensors, then the elements. The file's bytes must be covered by the tensors
/// exactly once, and every tensor must have the bytes its shape and type need. Not every writer
/// pads the header, so a tensor may begin at any byte.
/// @param file the whole file; only its header is touched
/// @param name what messages call it
/// @throws ModelError of one line
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, std::string_view name);

}  // namespace tandem
