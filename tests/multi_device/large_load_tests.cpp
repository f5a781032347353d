#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "core/mapped_file.h"
#include "core/size.h"
#include "model/model_loader.h"
#include "support/catch.h"
#include "support/sanitized.h"
#include "support/temporary_folder.h"
#include "tandem/engine.h"

using namespace tandem;
using nlohmann::json;

namespace {

constexpr int kHidden = 2048, kIntermediate = 8192, kHeads = 16, kKvHeads = 4, kHeadDim = 128;
constexpr int kLayers = tandem::test::kSanitized ? 1 : 7;
constexpr int kVocab = tandem::test::kSanitized ? 8000 : 32000;
constexpr uint64_t kAllowance = 300 * kMiB;  // host memory beyond the model's own size

/// Writes a model of more than 1 GiB, a smaller one for sanitizers, with random weights between
/// 1/128 and 1/64 in size.
uint64_t write_model(const std::filesystem::path& folder) {
  std::vector<std::pair<std::string, std::array<int64_t, 2>>> tensors = {
      {"model.embed_tokens.weight", {kVocab, kHidden}},
      {"lm_head.weight", {kVocab, kHidden}},
      {"model.norm.weight", {kHidden, 0}}};
  for (int layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const int64_t query = kHeads * kHeadDim, kv = kKvHeads * kHeadDim;
    tensors.push_back({prefix + "input_layernorm.weight", {kHidden, 0}});
    tensors.push_back({prefix + "post_attention_layernorm.weight", {kHidden, 0}});
    tensors.push_back({prefix + "self_attn.q_proj.weight", {query, kHidden}});
    tensors.push_back({prefix + "self_attn.k_proj.weight", {kv, kHidden}});
    tensors.push_back({prefix + "self_attn.v_proj.weight", {kv, kHidden}});
    tensors.push_back({prefix + "self_attn.o_proj.weight", {kHidden, query}});
    tensors.push_back({prefix + "mlp.gate_proj.weight", {kIntermediate, kHidden}});
    tensors.push_back({prefix + "mlp.up_proj.weight", {kIntermediate, kHidden}});
    tensors.push_back({prefix + "mlp.down_proj.weight", {kHidden, kIntermediate}});
  }
  json header;
  uint64_t offset = 0;
  for (const auto& [name, dims] : tensors) {
    const uint64_t count = static_cast<uint64_t>(dims[0] * std::max<int64_t>(1, dims[1]));
    json shape = json::array({dims[0]});
    if (dims[1] > 0) shape.push_back(dims[1]);
    header[name] = {
        {"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {offset, offset + 2 * count}}};
    offset += 2 * count;
  }
  std::string text = header.dump();
  text.resize(align_up(text.size(), 8), ' ');
  std::ofstream file(folder / "model.safetensors", std::ios::binary);
  const uint64_t length = text.size();
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file << text;
  std::mt19937_64 random(1);
  constexpr uint64_t kSignAndFraction = 0x807f807f807f807f, kExponent = 0x3c003c003c003c00;
  std::vector<uint64_t> block(kMiB / sizeof(uint64_t));
  for (uint64_t left = offset; left > 0;) {
    for (uint64_t& four : block) four = (random() & kSignAndFraction) | kExponent;
    const uint64_t bytes = std::min<uint64_t>(left, kMiB);
    file.write(reinterpret_cast<const char*>(block.data()), static_cast<std::streamsize>(bytes));
    left -= bytes;
  }
  std::ofstream(folder / "config.json") << json{
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"hidden_size", kHidden},
      {"intermediate_size", kIntermediate},
      {"num_hidden_layers", kLayers},
      {"num_attention_heads", kHeads},
      {"num_key_value_heads", kKvHeads},
      {"head_dim", kHeadDim},
      {"vocab_size", kVocab},
      {"max_position_embeddings", 2048},
      {"rms_norm_eps", 1e-5},
      {"rope_theta", 10000.0},
      {"hidden_act", "silu"},
      {"tie_word_embeddings", false},
      {"torch_dtype", "bfloat16"}}.dump();
  return offset;
}

/// A size of /proc/self/status or smaps: the number behind `key`, in bytes.
uint64_t kib_after(std::istream& stream, const std::string& key) {
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(key)) return std::stoull(line.substr(key.size() + 1)) * kKiB;
  }
  return 0;
}

/// Whether a process with this peak of memory held a model of so many bytes once, and little else.
/// A sanitizer's own memory would be measured too.
bool held_once(uint64_t peak, uint64_t bytes) {
  return tandem::test::kSanitized || (peak > bytes && peak < bytes + kAllowance);
}

uint64_t peak_memory() {
  std::ifstream status("/proc/self/status");
  return kib_after(status, "VmHWM:");
}

/// Whether a file is in this process's memory as pages that all processes share, and no others.
bool is_mapped_shared(const std::filesystem::path& file) {
  std::ifstream maps("/proc/self/smaps");
  int mappings = 0;
  for (std::string line; std::getline(maps, line);) {
    if (!line.ends_with(file.string())) continue;
    std::istringstream fields(line);
    std::string range, permissions;
    fields >> range >> permissions;
    if (permissions != "r--s" || kib_after(maps, "Anonymous:") != 0) return false;
    ++mappings;
  }
  return mappings > 0;  // planning may map it besides the load
}

/// Runs the work in a process of its own, whose memory is nobody else's.
pid_t fork_with(const std::function<bool()>& work) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  bool good = false;
  try {
    good = work();
  } catch (const std::exception&) {
  }
  ::_exit(good ? 0 : 1);
}

bool succeeded(pid_t child) {
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// Reads every page of a mapping.
uint64_t touch(const MappedFile& map) {
  constexpr size_t kPage = 4096;
  uint64_t sum = 0;
  for (size_t i = 0; i < map.bytes().size(); i += kPage)
    sum += static_cast<uint8_t>(map.bytes()[i]);
  return sum;
}

/// A pipe that one process waits on until the other lets go.
struct Gate {
  Gate() { REQUIRE(::pipe(ends) == 0); }
  void open() { [[maybe_unused]] const ssize_t written = ::write(ends[1], "x", 1); }
  void wait() {
    char byte = 0;
    [[maybe_unused]] const ssize_t count = ::read(ends[0], &byte, 1);
  }
  int ends[2] = {-1, -1};
};

}  // namespace

TEST_CASE("a model of more than a gibibyte needs little host memory beyond its own") {
  const tandem::testing::TemporaryFolder folder;
  const uint64_t bytes = write_model(folder.path());
  REQUIRE((tandem::test::kSanitized || bytes > kGiB));

  CHECK(succeeded(fork_with([&] {
    const auto backend = make_backend(DeviceSpec{});
    LoadOptions options;
    options.max_positions = 64;
    options.max_rows = 8;
    const auto model = load_model(folder.path(), *backend, options);
    const uint64_t peak = peak_memory();
    std::printf("model %s, peak host memory %s\n", format_size(bytes).c_str(),
                format_size(peak).c_str());
    std::fflush(stdout);
    return held_once(peak, bytes);
  })));

  // Two processes that map the file hold its pages once.
  Gate mapped, measured;
  const std::filesystem::path file = folder.path() / "model.safetensors";
  const pid_t first = fork_with([&] {
    const MappedFile map(file);
    const bool read = touch(map) > 0;
    mapped.open();
    measured.wait();
    return read;
  });
  const pid_t second = fork_with([&] {
    mapped.wait();
    const MappedFile map(file);
    const bool read = touch(map) > 0;
    std::ifstream maps("/proc/self/smaps");
    for (std::string line; std::getline(maps, line);) {
      if (line.find("model.safetensors") == std::string::npos) continue;
      const uint64_t resident = kib_after(maps, "Rss:");
      // Dirty: written by this test a moment ago, and not on the disk yet.
      const uint64_t shared = kib_after(maps, "Shared_Clean:") + kib_after(maps, "Shared_Dirty:");
      const uint64_t own = kib_after(maps, "Private_Clean:") + kib_after(maps, "Private_Dirty:");
      std::printf("mapped twice: %s resident, %s of it shared\n", format_size(resident).c_str(),
                  format_size(shared).c_str());
      std::fflush(stdout);
      measured.open();
      return read && resident > bytes * 9 / 10 && shared > resident * 9 / 10 && own < resident / 10;
    }
    measured.open();
    return false;
  });
  CHECK(succeeded(second));
  CHECK(succeeded(first));
}

TEST_CASE("two engines in two processes load one file, which is in memory once") {
  const tandem::testing::TemporaryFolder folder;
  const uint64_t bytes = write_model(folder.path());
  const std::filesystem::path demo = std::filesystem::path(TANDEM_SOURCE_DIR) / "models/demo/main";
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    if (std::filesystem::exists(demo / name)) {
      std::filesystem::copy_file(demo / name, folder.path() / name);
    }
  }
  const std::filesystem::path file =
      std::filesystem::canonical(folder.path() / "model.safetensors");

  Gate half_way[2];
  const auto load = [&](int self) {
    bool met = false, shared = false;
    const auto meet = [&] {
      if (std::exchange(met, true)) return;
      shared = is_mapped_shared(file);
      half_way[self].open();
      half_way[1 - self].wait();
    };
    EngineOptions options;
    options.on_load = [&](std::string_view, uint64_t done, uint64_t total) {
      if (done >= total / 2) meet();
    };
    Config config;
    config.main.model = folder.path();
    config.main.devices = "cpu:0=2GiB";  // simulated: no process waits for the other's lock
    config.main.max_model_len = 64;
    config.speculation.method = "none";
    config.cpu_threads = 1;
    try {
      const auto engine = Engine::from_config(config, options);
      SamplingParams params;
      params.max_tokens = 2;
      params.ignore_eos = true;
      const size_t tokens = engine->generate("x", params).token_ids.size();
      const uint64_t peak = peak_memory();
      std::printf("engine %d: model %s, peak host memory %s, file shared: %d\n", self,
                  format_size(bytes).c_str(), format_size(peak).c_str(), shared);
      std::fflush(stdout);
      return met && shared && tokens == 2 && held_once(peak, bytes);
    } catch (const std::exception& error) {
      std::printf("engine %d: %s\n", self, error.what());
      std::fflush(stdout);
      meet();  // or the other would wait for ever
      return false;
    }
  };
  const pid_t first = fork_with([&] { return load(0); });
  const pid_t second = fork_with([&] { return load(1); });
  CHECK(succeeded(second));
  CHECK(succeeded(first));
}
