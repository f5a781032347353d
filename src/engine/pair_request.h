#pragma once

#include <memory>
#include <string>

#include "engine/device_choice.h"
#include "model/checkpoint.h"
#include "plan/plan_table.h"
#include "plan/planner.h"
#include "tandem/config.h"

namespace tandem {

/// What a configuration asks for, as a planner and a loader need it. Nothing is allocated by then.
struct PairRequest {
  PlanRequest plan;
  DeviceChoice devices;
  Checkpoint main_checkpoint;
  Checkpoint draft_checkpoint;  ///< of no folder without a draft model
  std::shared_ptr<WeightSource>
      main_weights;  ///< null: the folder holds no weights, only a plan can be made
  std::shared_ptr<WeightSource> draft_weights;  ///< null also without a draft model
  int num_speculative_tokens = 0;               ///< of a request that asks for none
  int max_drafts = 0;                           ///< the largest K that a request may ask for
  DraftOutlook outlook;
};

/// Reads both models' config.json and, where there are weights, the tensors' headers, which decide
/// the formats that weights are stored in; without weights that is config.json's dtype (bfloat16 if
/// it names none).
/// @param planned_devices see `choose_devices`
/// @throws ConfigError, ModelError
PairRequest pair_request(const Config& config, const std::string& planned_devices = {});

}  // namespace tandem
