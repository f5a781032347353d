#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "tandem/sampling.h"

namespace tandem {

/// The draft's part of Config, outside of it: clang does not default-construct a nested struct that
/// has initialisers while the enclosing one is incomplete, as std::optional's traits ask it to.
struct DraftConfig {
  std::filesystem::path model;
  std::string device = "auto";
  std::string quantization = "none";
  std::string expand = "none";
};

/// What tandem's JSON configuration says (configs/schema.json). Every field has the file's default.
struct Config {
  struct Main {
    std::filesystem::path model;  ///< Hugging Face folder
    /// "auto", or a comma-separated list: "cuda:0,cuda:1", "cpu:0=64MiB"
    std::string devices = "auto";
    std::string split = "auto";         ///< "auto", "layer", "tensor"
    std::string dtype = "auto";         ///< "auto" (as stored), "bfloat16", "float16", "float32"
    std::string quantization = "none";  ///< "none", "fp8", "int4"
    /// "none", or a shape that the model's function is computed in, to measure what a model of that
    /// size costs: "1B", "8B", "70B"
    std::string expand = "none";
    std::optional<int> max_model_len;  ///< none: "auto", the model's own limit or what fits;
                                       ///< at most 8192 in the host's own memory
  } main;

  using Draft = DraftConfig;
  std::optional<Draft> draft;

  struct Speculation {
    std::string method = "draft_model";         ///< "draft_model", "ngram", "none"
    std::optional<int> num_speculative_tokens;  ///< none: "auto"
    int max_speculative_tokens = 8;             ///< bounds "auto"; 1 … 15
    /// What "auto" goes by (`CostTable::from_file`); none: measured when the pair is loaded
    std::optional<std::filesystem::path> cost_table;
    std::string rejection_sample_method = "block";  ///< "rejection", "block", "coupled"
    int prompt_lookup_min = 2;
    int prompt_lookup_max = 4;
    bool allow_vocabulary_mismatch = false;
  } speculation;

  struct Memory {
    static constexpr uint64_t kDefaultReserveBytes = 256ull << 20;
    /// Left free on every device. None: kDefaultReserveBytes for what else runs there, and nothing
    /// on a simulated device, where nothing does.
    std::optional<uint64_t> reserve_bytes;
    std::optional<uint64_t> limit_bytes;  ///< of each device, use at most this much
    /// Keys such as "cuda:0"; for the devices they name, these win over the sizes above.
    std::map<std::string, uint64_t> reserve_bytes_by_device;
    std::map<std::string, uint64_t> limit_bytes_by_device;
  } memory;

  struct Communication {
    std::string all_reduce = "auto";  ///< "auto", "nccl", "peer"
  } communication;

  SamplingParams sampling;

  int cpu_threads = 0;            ///< 0: every core the process may use. Not part of the file.
  std::string source = "config";  ///< what messages call this configuration. Not part of the file.

  /// Reads a file and checks every value for itself; how they fit together is checked by
  /// `validate`, so that a program may override some before. Relative model paths are relative to
  /// the file's folder, then to the working directory.
  /// @throws ConfigError with file, key and remedy: unknown key (names the nearest), wrong type,
  /// value out of range, a key that stands twice, text that is not JSON (with line and column)
  static Config from_file(const std::filesystem::path& path);
  /// @param folder what relative model paths are relative to first
  /// @param name   what messages call the text
  static Config from_json(std::string_view text, const std::filesystem::path& folder,
                          std::string_view name = "config");
  /// Checks the values and how they fit together; `Engine::from_config` calls it.
  /// @throws ConfigError
  void validate() const;
  /// The file that would give this configuration.
  std::string to_json() const;
};

}  // namespace tandem
