#include "engine/pair_loader.h"

#include <algorithm>
#include <string>

#include "core/device.h"
#include "core/size.h"
#include "spec/model_drafter.h"
#include "spec/ngram_drafter.h"
#include "spec/vocabulary_agreement.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// "auto" draft length, until something measured says better.
constexpr int kDefaultSpeculativeTokens = 4;
/// "auto" context at most: a cache for the 131072 positions that many models allow is rarely
/// wanted.
constexpr int kDefaultMaxModelLen = 8192;
/// Rows of one prefill pass.
constexpr int kPrefillRows = 256;
/// Rows of one draft pass whose logits are wanted.
constexpr int kDraftLogitsRows = 1;

DeviceSpec choose_device(const Config& config) {
  const auto require = [&](bool holds, const std::string& what) {
    if (!holds) throw ConfigError(config.source + ": " + what);
  };
  DeviceSpec device;
  if (config.main.devices == "auto") {
    device.id = list_devices().front().id;
  } else {
    const std::vector<DeviceSpec> devices = parse_device_list(config.main.devices);
    require(devices.size() == 1, "\"main.devices\" names " + std::to_string(devices.size()) +
                                     " devices; this version runs a model on one");
    device = devices.front();
  }
  if (config.draft && config.draft->device != "auto") {
    require(parse_device(config.draft->device).id == device.id,
            "\"draft.device\" is \"" + config.draft->device + "\", the main model's device " +
                to_string(device.id) + "; this version keeps both on one device");
  }
  const auto check_quantization = [&](const char* key, const std::string& quantization) {
    require(quantization == "none",
            std::string("\"") + key + "\" is \"" + quantization +
                "\"; this version runs weights as they are stored: set \"none\"");
  };
  check_quantization("main.quantization", config.main.quantization);
  if (config.draft) check_quantization("draft.quantization", config.draft->quantization);
  return device;
}

/// Formats for "main.dtype"; empty: as stored.
FormatOf formats_of(const std::string& dtype) {
  if (dtype == "float32") return formats_all(WeightFormat::kF32);
  if (dtype == "float16") return formats_all(WeightFormat::kF16);
  if (dtype == "bfloat16") return formats_all(WeightFormat::kBF16);
  return {};
}

int choose_max_model_len(const Config& config, const ModelConfig& main, EngineInfo& info) {
  const int limit = main.max_position_embeddings;
  if (!config.main.max_model_len) {
    if (limit > kDefaultMaxModelLen) {
      info.warnings.push_back(
          main.source + ": the context is " + std::to_string(kDefaultMaxModelLen) + " of the " +
          std::to_string(limit) + " tokens the model allows; set \"main.max_model_len\" for more");
    }
    return std::min(limit, kDefaultMaxModelLen);
  }
  if (*config.main.max_model_len > limit) {
    throw ConfigError(config.source + ": \"main.max_model_len\" is " +
                      std::to_string(*config.main.max_model_len) + "; " + main.source + " allows " +
                      std::to_string(limit));
  }
  return *config.main.max_model_len;
}

/// The bytes of every id that the model and its tokenizer both know.
std::vector<std::optional<std::string>> vocabulary_of(const Tokenizer& tokenizer,
                                                      const ModelConfig& model) {
  std::vector<std::optional<std::string>> vocabulary;
  const int32_t size = std::min(tokenizer.vocab_size(), model.vocab_size);
  vocabulary.reserve(static_cast<size_t>(size));
  for (int32_t id = 0; id < size; ++id) vocabulary.push_back(tokenizer.token_bytes(id));
  return vocabulary;
}

/// One of the two models on its way to the device.
struct ModelToLoad {
  std::filesystem::path folder;
  std::string role;
  ModelConfig config;
  ModelLimits limits;
  FormatOf formats;

  std::unique_ptr<Transformer> load(Backend& backend, const EngineOptions& options) const {
    const std::unique_ptr<WeightSource> source = open_weights(folder);
    Transformer::Options wanted{limits, role, formats, {}};
    if (options.on_load) {
      wanted.progress = [&](uint64_t done, uint64_t total) { options.on_load(role, done, total); };
    }
    return std::make_unique<Transformer>(config, ModelShard::whole(config), *source, backend,
                                         wanted);
  }
};

class PairLoader {
 public:
  PairLoader(const Config& config, const EngineOptions& options)
      : config_(config), speculation_(config.speculation), options_(options) {}

  LoadedPair load() {
    const DeviceSpec device = choose_device(config_);
    prepare_main();
    if (speculation_.method == "draft_model") prepare_draft();
    pair_.backend = make_backend(device, config_.cpu_threads);
    pair_.info.device = pair_.backend->description();
    if (draft_) pair_.draft = draft_->load(*pair_.backend, options_);
    pair_.main = main_.load(*pair_.backend, options_);
    if (pair_.draft) compare_sizes();
    pair_.decoder = std::make_unique<SpeculativeDecoder>(*pair_.main, make_drafter(), max_drafts_);
    return std::move(pair_);
  }

 private:
  void prepare_main() {
    EngineInfo& info = pair_.info;
    main_.folder = config_.main.model;
    main_.role = "main";
    main_.config = ModelConfig::from_folder(main_.folder);
    main_.formats = formats_of(config_.main.dtype);
    take_warnings(main_.config);
    pair_.tokenizer = Tokenizer::from_folder(main_.folder);
    pair_.eos_token_ids = main_.config.eos_token_ids;
    info.main_model = main_.folder.string();
    info.method = speculation_.method;
    info.max_model_len = choose_max_model_len(config_, main_.config, info);
    if (speculation_.method != "none") {
      info.num_speculative_tokens = speculation_.num_speculative_tokens.value_or(
          std::min(kDefaultSpeculativeTokens, speculation_.max_speculative_tokens));
      max_drafts_ = std::max(info.num_speculative_tokens, speculation_.max_speculative_tokens);
      info.max_speculative_tokens = max_drafts_;
    }
    main_.limits = {.max_positions = info.max_model_len,
                    .max_rows = kPrefillRows,
                    .max_logits_rows = max_drafts_ + 1};
  }

  void prepare_draft() {
    EngineInfo& info = pair_.info;
    draft_.emplace();
    draft_->folder = config_.draft->model;
    draft_->role = "draft";
    draft_->config = ModelConfig::from_folder(draft_->folder);
    take_warnings(draft_->config);
    compare_tokenizers();
    info.draft_model = draft_->folder.string();
    info.draft_max_model_len = std::min(info.max_model_len, draft_->config.max_position_embeddings);
    if (info.draft_max_model_len < info.max_model_len) {
      info.warnings.push_back(draft_->config.source + ": the draft's context ends at " +
                              std::to_string(info.draft_max_model_len) +
                              " tokens, the main model's at " + std::to_string(info.max_model_len) +
                              "; between them decoding is plain");
    }
    draft_->limits = {.max_positions = info.draft_max_model_len,
                      .max_rows = kPrefillRows,
                      .max_logits_rows = kDraftLogitsRows};
  }

  void compare_tokenizers() {
    const Tokenizer draft_tokenizer = Tokenizer::from_folder(draft_->folder);
    agreement_ = compare_vocabularies(vocabulary_of(*pair_.tokenizer, main_.config),
                                      vocabulary_of(draft_tokenizer, draft_->config));
    pair_.info.vocabulary_agreement = agreement_.fraction();
    const std::string refusal = vocabulary_refusal(agreement_);
    if (refusal.empty()) return;
    const std::string message = draft_->folder.string() + ": " + refusal;
    if (!speculation_.allow_vocabulary_mismatch) throw ModelError(message);
    pair_.info.warnings.push_back(message);
  }

  void compare_sizes() {
    const uint64_t draft_bytes = pair_.draft->weights_bytes(),
                   main_bytes = pair_.main->weights_bytes();
    if (draft_bytes <= main_bytes) return;
    pair_.info.warnings.push_back("the draft model (" + format_size(draft_bytes) +
                                  " of weights) is larger than the main model (" +
                                  format_size(main_bytes) +
                                  "): drafting will cost more than it saves; are the two swapped?");
  }

  std::unique_ptr<Drafter> make_drafter() {
    if (pair_.draft) {
      return std::make_unique<ModelDrafter>(*pair_.draft, pair_.main->vocab_size(),
                                            agreement_.allowed);
    }
    if (speculation_.method == "ngram") {
      return std::make_unique<NgramDrafter>(*pair_.backend, speculation_.prompt_lookup_min,
                                            speculation_.prompt_lookup_max,
                                            pair_.info.max_model_len);
    }
    return nullptr;
  }

  void take_warnings(const ModelConfig& model) {
    auto& warnings = pair_.info.warnings;
    warnings.insert(warnings.end(), model.warnings.begin(), model.warnings.end());
  }

  const Config& config_;
  const Config::Speculation& speculation_;
  const EngineOptions& options_;
  ModelToLoad main_;
  std::optional<ModelToLoad> draft_;
  VocabularyAgreement agreement_;
  int max_drafts_ = 0;
  LoadedPair pair_;
};

}  // namespace

LoadedPair load_pair(const Config& config, const EngineOptions& options) {
  config.validate();
  return PairLoader(config, options).load();
}

}  // namespace tandem
