// How fast a checkpoint comes from the page cache onto a GPU. Writes a checkpoint of random
// bfloat16 weights in the shape of a model of 1B or 8B, loads it a few times, and removes it.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "model/transformer.h"
#include "tandem/error.h"

namespace {

using namespace tandem;
namespace fs = std::filesystem;

struct Options {
  std::string folder = fs::temp_directory_path().string();
  std::string shape = "8B";
  std::string format = "bfloat16";
  int repeats = 3;
  bool json = false;
};

struct Sizes {
  int layers, hidden, heads, kv_heads, head_dim, mlp, vocab;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A folder that is removed with what it holds.
class ScratchFolder {
 public:
  explicit ScratchFolder(const fs::path& parent)
      : path_(parent / ("tandem-bench-load-" + std::to_string(getpid()))) {
    fs::create_directories(path_);
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

nlohmann::json config_of(const Sizes& s) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_act", "silu"},
          {"hidden_size", s.hidden},
          {"intermediate_size", s.mlp},
          {"num_hidden_layers", s.layers},
          {"num_attention_heads", s.heads},
          {"num_key_value_heads", s.kv_heads},
          {"head_dim", s.head_dim},
          {"vocab_size", s.vocab},
          {"max_position_embeddings", 8192},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500000.0},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"}};
}

/// The header of a safetensors file, and the bytes of data behind it.
struct Header {
  nlohmann::json tensors = nlohmann::json::object();
  uint64_t bytes = 0;

  void add(const std::string& name, const std::vector<int64_t>& shape) {
    uint64_t size = 2;
    for (const int64_t n : shape) size *= static_cast<uint64_t>(n);
    tensors[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {bytes, bytes + size}}};
    bytes += size;
  }
};

Header header_of(const Sizes& s) {
  Header header;
  const int64_t query = int64_t{s.heads} * s.head_dim, key = int64_t{s.kv_heads} * s.head_dim;
  header.add("model.embed_tokens.weight", {s.vocab, s.hidden});
  for (int i = 0; i < s.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    header.add(layer + "input_layernorm.weight", {s.hidden});
    header.add(layer + "self_attn.q_proj.weight", {query, s.hidden});
    header.add(layer + "self_attn.k_proj.weight", {key, s.hidden});
    header.add(layer + "self_attn.v_proj.weight", {key, s.hidden});
    header.add(layer + "self_attn.o_proj.weight", {s.hidden, query});
    header.add(layer + "post_attention_layernorm.weight", {s.hidden});
    header.add(layer + "mlp.gate_proj.weight", {s.mlp, s.hidden});
    header.add(layer + "mlp.up_proj.weight", {s.mlp, s.hidden});
    header.add(layer + "mlp.down_proj.weight", {s.hidden, s.mlp});
  }
  header.add("model.norm.weight", {s.hidden});
  header.add("lm_head.weight", {s.vocab, s.hidden});
  return header;
}

/// Random bfloat16 numbers of magnitude 2^-7 ... 2^-4 (xorshift64, Marsaglia 2003).
void fill_random(std::byte* data, uint64_t bytes, uint64_t seed) {
  constexpr uint64_t kKept = 0x81ff81ff81ff81ffull, kSet = 0x3c003c003c003c00ull;
  uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
  for (uint64_t i = 0; i < bytes; i += sizeof(state)) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    const uint64_t four = (state & kKept) | kSet;
    std::memcpy(data + i, &four, std::min<uint64_t>(sizeof(four), bytes - i));
  }
}

/// Writes model.safetensors with all the machine's cores. Returns its bytes.
uint64_t write_weights(const fs::path& path, const Sizes& sizes) {
  const Header header = header_of(sizes);
  std::string text = header.tensors.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size(), start = sizeof(length) + length, all = start + header.bytes;
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || ftruncate(file, static_cast<off_t>(all)) != 0) {
    throw ModelError(path.string() + ": cannot be written: " + std::strerror(errno));
  }
  void* const mapped = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) {
    throw ModelError(path.string() + ": cannot be mapped: " + std::strerror(errno));
  }
  auto* const data = static_cast<std::byte*>(mapped);
  std::memcpy(data, &length, sizeof(length));
  std::memcpy(data + sizeof(length), text.data(), length);
  const uint64_t workers = std::max(1u, std::thread::hardware_concurrency());
  const uint64_t share = (header.bytes / workers + 7) / 8 * 8;
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < workers && i * share < header.bytes; ++i) {
    threads.emplace_back([=, bytes = header.bytes] {
      fill_random(data + start + i * share, std::min(share, bytes - i * share), i + 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  munmap(mapped, all);
  return all;
}

WeightFormat format_named(const std::string& name) {
  for (const auto format :
       {WeightFormat::kBF16, WeightFormat::kFp8E4M3, WeightFormat::kInt4Group128}) {
    if (name_of(format) == name) return format;
  }
  throw UsageError("no weight format '" + name + "'");
}

void run(const Options& options) {
  const Sizes sizes = options.shape == "8B" ? Sizes{32, 4096, 32, 8, 128, 14336, 128256}
                                            : Sizes{16, 2048, 32, 8, 64, 8192, 128256};
  const ScratchFolder folder(options.folder);
  std::ofstream(folder.path() / "config.json") << config_of(sizes).dump(2);
  const double before = now();
  const uint64_t bytes = write_weights(folder.path() / "model.safetensors", sizes);
  std::fprintf(stderr, "wrote %.2f GB in %.1f s\n", static_cast<double>(bytes) * 1e-9,
               now() - before);

  const auto backend = make_backend({.id = {DeviceKind::kCuda, 0}, .capacity_bytes = std::nullopt});
  const ModelConfig config = ModelConfig::from_folder(folder.path());
  Transformer::Options load;
  load.limits = {.max_positions = 2048, .max_rows = 2048, .max_logits_rows = 8};
  load.formats = formats_all(format_named(options.format));
  for (int i = 0; i < options.repeats; ++i) {
    const double begin = now();
    const std::unique_ptr<WeightSource> source = open_weights(folder.path());
    const Transformer model(config, ModelShard::whole(config), *source, *backend, load);
    const double seconds = now() - begin;
    const double rate = static_cast<double>(bytes) / seconds;
    if (options.json) {
      std::printf("{\"shape\": \"%s\", \"format\": \"%s\", \"bytes\": %llu, \"seconds\": %.4f}\n",
                  options.shape.c_str(), options.format.c_str(),
                  static_cast<unsigned long long>(bytes), seconds);
    } else {
      std::printf("%s of %s as %s: %.2f GB in %.2f s, %.2f GB/s\n",
                  i == 0 ? "first load" : "next load", options.shape.c_str(),
                  options.format.c_str(), static_cast<double>(bytes) * 1e-9, seconds, rate * 1e-9);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Times the load of a large checkpoint from the page cache onto a GPU");
  app.add_option("--folder", options.folder,
                 "Where to write the checkpoint of up to 16 GB; best a folder in memory")
      ->check(CLI::ExistingDirectory);
  app.add_option("--shape", options.shape, "Model shape: 1B, 8B")
      ->check(CLI::IsMember({"1B", "8B"}));
  app.add_option("--format", options.format,
                 "Weights on the device: bfloat16, fp8_e4m3, int4_group128")
      ->check(CLI::IsMember({"bfloat16", "fp8_e4m3", "int4_group128"}));
  app.add_option("--repeats", options.repeats, "Loads")->check(CLI::Range(1, 100));
  app.add_flag("--json", options.json, "A line of JSON for each load");
  CLI11_PARSE(app, argc, argv);
  try {
    run(options);
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "bench_load: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
