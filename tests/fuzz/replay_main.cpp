// Feeds a seed corpus to a fuzz target without libFuzzer, so that the corpus stays tested with any
// compiler. Besides every file as it is, its beginnings are tried: a reader of a format meets
// truncated files more often than any other.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kCutsPerFile = 16;

/// A copy of exactly `size` bytes, so that a read behind the end is a read behind an allocation.
void feed(const std::vector<uint8_t>& bytes, size_t size) {
  const std::vector<uint8_t> input(bytes.begin(),
                                   bytes.begin() + static_cast<std::ptrdiff_t>(size));
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || !std::filesystem::is_directory(argv[1])) {
    std::cerr << "usage: " << argv[0] << " CORPUS_FOLDER\n";
    return 2;
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[1])) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  size_t inputs = 0;
  for (const auto& file : files) {
    std::cout << file.string() << std::endl;  // flushed: a crash must name its input
    std::ifstream stream(file, std::ios::binary);
    const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(stream),
                                     std::istreambuf_iterator<char>()};
    for (size_t cut = 0; cut <= kCutsPerFile; ++cut) {
      feed(bytes, bytes.size() * cut / kCutsPerFile);
      ++inputs;
    }
  }
  std::cout << files.size() << " seeds, " << inputs << " inputs, no crash\n";
  return files.empty() ? 1 : 0;
}
