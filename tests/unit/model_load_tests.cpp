#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "backend/backend.h"
#include "core/size.h"
#include "model/model_loader.h"
#include "support/catch.h"
#include "support/safetensors_builder.h"
#include "support/sanitized.h"
#include "support/temporary_folder.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

/// A line of /proc/self/status in bytes: "VmRSS" now, "VmHWM" at most so far.
uint64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key + ":", 0) == 0) return std::stoull(line.substr(key.size() + 1)) * kKiB;
  }
  return 0;
}

/// Writes a bf16 Llama whose weights are all zero; the file is sparse and takes no room on disk.
/// @return bytes of all tensors
uint64_t write_model(const std::filesystem::path& folder, int layers, int hidden, int mlp,
                     int vocab) {
  const Json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"vocab_size", vocab},
                       {"hidden_size", hidden},
                       {"intermediate_size", mlp},
                       {"num_hidden_layers", layers},
                       {"num_attention_heads", 8},
                       {"tie_word_embeddings", true},
                       {"max_position_embeddings", 64}};
  test::write_file(folder / "config.json", config.dump());
  Json header;
  uint64_t end = 0;
  const auto add = [&](const std::string& name, const std::vector<int>& shape) {
    uint64_t bytes = size_of(DType::kBF16);
    for (const int dim : shape) bytes *= static_cast<uint64_t>(dim);
    header[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
    end += bytes;
  };
  add("model.embed_tokens.weight", {vocab, hidden});
  add("model.norm.weight", {hidden});
  for (int layer = 0; layer < layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(prefix + "input_layernorm.weight", {hidden});
    add(prefix + "post_attention_layernorm.weight", {hidden});
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
      add(prefix + "self_attn." + name + ".weight", {hidden, hidden});
    }
    add(prefix + "mlp.gate_proj.weight", {mlp, hidden});
    add(prefix + "mlp.up_proj.weight", {mlp, hidden});
    add(prefix + "mlp.down_proj.weight", {hidden, mlp});
  }
  const std::filesystem::path file = folder / "model.safetensors";
  const std::string start = test::safetensors_bytes(test::padded(header.dump()), 0);
  test::write_file(file, start);
  std::filesystem::resize_file(file, start.size() + end);
  return end;
}

TEST_CASE("Loading needs little more memory than the model itself") {
  if (test::kSanitized) return;  // shadow memory would be measured too
  constexpr int kLayers = 16, kHidden = 512, kMlp = 2048, kVocab = 4096;
  const testing::TemporaryFolder folder;
  const uint64_t tensors = write_model(folder.path(), kLayers, kHidden, kMlp, kVocab);
  const std::unique_ptr<Backend> backend = make_backend(parse_device("cpu"), 1);
  const uint64_t before = status_bytes("VmRSS");
  LoadOptions options;
  options.max_rows = 1;
  const auto model = load_model(folder.path(), *backend, options);
  const uint64_t allocated = backend->memory().allocated_bytes();
  const uint64_t peak = status_bytes("VmHWM") - before;
  // Besides the model itself: one fused weight at a time, here gate and up, and what the process
  // needs anyway.
  constexpr uint64_t kLargestWeight = 2ull * kMlp * kHidden * 2, kSlack = 12 * kMiB;
  CAPTURE(before, allocated, peak, tensors);
  CHECK(allocated >= tensors);
  CHECK(peak <= allocated + kLargestWeight + kSlack);
  CHECK(allocated + kLargestWeight + kSlack < 2 * tensors);  // or the check above would see nothing
}

}  // namespace
}  // namespace tandem
