#pragma once

#include <array>
#include <span>
#include <string_view>

#include "backend/round_view.h"
#include "tandem/config.h"

namespace tandem {

/// What a string of the configuration may be.
using Choices = std::span<const std::string_view>;

inline constexpr std::array<std::string_view, 3> kSplits = {"auto", "layer", "tensor"};
inline constexpr std::array<std::string_view, 4> kDtypes = {"auto", "bfloat16", "float16",
                                                            "float32"};
inline constexpr std::array<std::string_view, 3> kQuantizations = {"none", "fp8", "int4"};
inline constexpr std::array<std::string_view, 4> kExpansions = {"none", "1B", "8B", "70B"};
inline constexpr std::array<std::string_view, 3> kMethods = {"draft_model", "ngram", "none"};
inline constexpr std::array<std::string_view, 3> kRejectionSampleMethods = {"rejection", "block",
                                                                            "coupled"};
inline constexpr std::array<std::string_view, 3> kAllReduces = {"auto", "nccl", "peer"};

inline constexpr int kMaxModelLen = 1 << 24;
inline constexpr int kMaxPromptLookup = 32;
inline constexpr uint64_t kSmallestReserve = 0;
inline constexpr uint64_t kSmallestLimit = 1;

/// The configuration file's keys, in one place: reading, writing and checking are three visitors of
/// this list, so they cannot disagree. A visitor offers `section`, `optional_section` and one
/// function per kind of value.
/// @param config Config& or const Config&
template <typename Visitor, typename ConfigType>
void visit_config(Visitor& visitor, ConfigType& config) {
  visitor.section("main", config.main, [](auto& v, auto& main) {
    v.path("model", main.model);
    v.devices("devices", main.devices);
    v.choice("split", main.split, kSplits);
    v.choice("dtype", main.dtype, kDtypes);
    v.choice("quantization", main.quantization, kQuantizations);
    v.choice("expand", main.expand, kExpansions);
    v.integer_or_auto("max_model_len", main.max_model_len, 1, kMaxModelLen);
  });
  visitor.optional_section("draft", config.draft, [](auto& v, auto& draft) {
    v.path("model", draft.model);
    v.device("device", draft.device);
    v.choice("quantization", draft.quantization, kQuantizations);
    v.choice("expand", draft.expand, kExpansions);
  });
  visitor.section("speculation", config.speculation, [](auto& v, auto& speculation) {
    v.choice("method", speculation.method, kMethods);
    v.integer_or_auto("num_speculative_tokens", speculation.num_speculative_tokens, 0,
                      kMaxSpeculativeTokens);
    v.integer("max_speculative_tokens", speculation.max_speculative_tokens, 1,
              kMaxSpeculativeTokens);
    v.optional_file("cost_table", speculation.cost_table);
    v.choice("rejection_sample_method", speculation.rejection_sample_method,
             kRejectionSampleMethods);
    v.integer("prompt_lookup_min", speculation.prompt_lookup_min, 1, kMaxPromptLookup);
    v.integer("prompt_lookup_max", speculation.prompt_lookup_max, 1, kMaxPromptLookup);
    v.boolean("allow_vocabulary_mismatch", speculation.allow_vocabulary_mismatch);
  });
  visitor.section("memory", config.memory, [](auto& v, auto& memory) {
    v.size_by_device("reserve", memory.reserve_bytes, memory.reserve_bytes_by_device,
                     kSmallestReserve);
    v.size_by_device("limit", memory.limit_bytes, memory.limit_bytes_by_device, kSmallestLimit);
  });
  visitor.section("sampling", config.sampling, [](auto& v, auto& sampling) {
    v.number("temperature", sampling.temperature);
    v.number("top_p", sampling.top_p);
    v.integer("top_k", sampling.top_k);
    v.number("min_p", sampling.min_p);
    v.number("repetition_penalty", sampling.repetition_penalty);
    v.number("presence_penalty", sampling.presence_penalty);
    v.number("frequency_penalty", sampling.frequency_penalty);
    v.seed("seed", sampling.seed);
    v.integer("max_tokens", sampling.max_tokens);
    v.texts("stop", sampling.stop);
    v.boolean("ignore_eos", sampling.ignore_eos);
    v.sampling_ranges(sampling);
  });
  visitor.section("communication", config.communication, [](auto& v, auto& communication) {
    v.choice("all_reduce", communication.all_reduce, kAllReduces);
  });
}

/// The key under which an object of sizes by device may hold the size of all other devices.
inline constexpr const char* kOtherDevices = "default";

/// Checks every value for itself. @throws ConfigError `source: 'key' is …; expected …`
void check_config_values(const Config& config);

}  // namespace tandem
