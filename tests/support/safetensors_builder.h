#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::test {

/// The bytes of a safetensors file with this header text and so many bytes of zeros behind it.
inline std::string safetensors_bytes(std::string_view header, size_t data_bytes) {
  constexpr int kLengthBytes = 8, kBitsPerByte = 8;
  std::string bytes;
  for (int i = 0; i < kLengthBytes; ++i) {
    bytes += static_cast<char>((header.size() >> (kBitsPerByte * i)) & 0xffu);
  }
  bytes += header;
  bytes.append(data_bytes, '\0');
  return bytes;
}

/// Pads a header with spaces so that the data behind it is aligned, as the format's own writer
/// does.
inline std::string padded(std::string header) {
  constexpr size_t kAlignment = 8;
  while (header.size() % kAlignment != 0) header += ' ';
  return header;
}

inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace tandem::test
