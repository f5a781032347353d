#include "engine/pair_request.h"

#include <algorithm>
#include <utility>

#include "model/model_weights.h"
#include "model/weight_formats.h"
#include "spec/model_drafter.h"
#include "spec/remote_drafter.h"
#include "spec/speculative_decoder.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// Rows of one prefill pass, the largest row bucket. A GPU's matrix units want many at a time.
constexpr int kCpuPrefillRows = 256;
constexpr int kCudaPrefillRows = 2048;
/// Rows of one draft pass whose logits are wanted.
constexpr int kDraftLogitsRows = 1;

WeightFormat format_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return WeightFormat::kF32;
    case DType::kF16:
      return WeightFormat::kF16;
    default:
      return WeightFormat::kBF16;
  }
}

FormatOf unquantized_formats(const std::string& dtype, const ModelConfig& config,
                             const std::shared_ptr<WeightSource>& weights) {
  if (dtype == "float32") return formats_all(WeightFormat::kF32);
  if (dtype == "float16") return formats_all(WeightFormat::kF16);
  if (dtype == "bfloat16") return formats_all(WeightFormat::kBF16);
  if (weights == nullptr) return formats_all(format_of(config.dtype.value_or(DType::kBF16)));
  return [weights, stored = formats_as_stored(*weights)](std::string_view tensor) {
    return stored(tensor);
  };
}

PlannedModel planned_model(const std::string& role, const Checkpoint& checkpoint,
                           const std::string& dtype, const std::string& quantization,
                           std::shared_ptr<WeightSource>& weights) {
  PlannedModel model;
  model.role = role;
  model.config = checkpoint.config();
  if (checkpoint.has_weights()) {
    weights = checkpoint.open();
    check_weights(model.config, ModelShard::whole(model.config), *weights);
  }
  model.formats = quantized_formats(parse_quantization(quantization), model.config,
                                    unquantized_formats(dtype, model.config, weights));
  return model;
}

/// The main model's kind of device decides for both models: their prompts are cut alike.
int prefill_rows(const DeviceChoice& devices) {
  const auto& main = devices.main_devices;
  const bool cuda = std::any_of(main.begin(), main.end(), [&](size_t index) {
    return devices.specs[index].id.kind == DeviceKind::kCuda;
  });
  return cuda ? kCudaPrefillRows : kCpuPrefillRows;
}

SplitChoice split_choice(const std::string& split) {
  return split == "layer"    ? SplitChoice::kLayer
         : split == "tensor" ? SplitChoice::kTensor
                             : SplitChoice::kAuto;
}

}  // namespace

PairRequest pair_request(const Config& config, const std::string& planned_devices) {
  const Config::Speculation& speculation = config.speculation;
  PairRequest request;
  if (speculation.method != "none") {
    request.num_speculative_tokens = speculation.num_speculative_tokens.value_or(kAutoDraftLength);
    request.max_drafts =
        std::max(request.num_speculative_tokens, speculation.max_speculative_tokens);
    request.outlook = {
        speculation.method == "ngram" ? DraftOutlook::Kind::kText : DraftOutlook::Kind::kModel,
        request.max_drafts};
  }

  request.main_checkpoint = {config.main.model, config.main.expand};
  request.devices = choose_devices(config, planned_devices);
  const int max_rows = prefill_rows(request.devices);
  PlannedModel& main = request.plan.main;
  main = planned_model("main", request.main_checkpoint, config.main.dtype, config.main.quantization,
                       request.main_weights);
  main.max_rows = max_rows;
  main.max_logits_rows = request.max_drafts + 1;
  const bool has_draft = speculation.method == "draft_model";
  RoundShape shape;
  shape.max_drafts = request.max_drafts;
  shape.vocab = main.config.vocab_size;
  shape.max_rows = main.max_rows;
  shape.draft_probs = has_draft;
  main.round_state_bytes = [shape](int positions) mutable {
    shape.max_positions = positions;
    return SpeculativeDecoder::bytes(shape);
  };
  if (has_draft) {
    request.draft_checkpoint = {config.draft->model, config.draft->expand};
    PlannedModel& draft = request.plan.draft.emplace(
        planned_model("draft", request.draft_checkpoint, "auto", config.draft->quantization,
                      request.draft_weights));
    draft.max_rows = max_rows;
    draft.max_logits_rows = kDraftLogitsRows;
    draft.round_state_bytes = [rows = draft.max_rows, vocab = main.config.vocab_size](int) {
      return ModelDrafter::bytes(rows, vocab);
    };
    draft.round_copy_bytes = [shape](int positions) mutable {
      shape.max_positions = positions;
      return RemoteDrafter::bytes(shape);
    };
  }

  request.plan.devices = survey_devices(request.devices, config.memory);
  request.plan.main_devices = request.devices.main_devices;
  request.plan.choose_devices = request.devices.choose_devices;
  if (has_draft) request.plan.draft_device = request.devices.draft_device;
  request.plan.split = split_choice(config.main.split);
  request.plan.max_model_len = config.main.max_model_len;
  const auto on_host = [](const DeviceSpec& spec) {
    return spec.id.kind == DeviceKind::kCpu && !spec.capacity_bytes;
  };
  if (std::any_of(request.devices.specs.begin(), request.devices.specs.end(), on_host)) {
    request.plan.auto_limit = kHostAutoContext;
  }
  return request;
}

}  // namespace tandem
