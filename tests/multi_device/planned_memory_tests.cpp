#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "comm/thread_communicator.h"
#include "engine/pair_request.h"
#include "model/transformer.h"
#include "spec/model_drafter.h"
#include "spec/remote_drafter.h"
#include "spec/speculative_decoder.h"
#include "support/catch.h"
#include "tandem/config.h"

using namespace tandem;

namespace {

Config demo_on(int devices, const char* split, int num_drafts, int draft_device) {
  const std::filesystem::path source = TANDEM_SOURCE_DIR;
  Config config;
  config.main.model = source / "models/demo/main";
  config.draft.emplace().model = source / "models/demo/draft";
  config.main.split = split;
  config.main.devices.clear();
  for (int i = 0; i < devices; ++i) {
    config.main.devices += (i > 0 ? ",cpu:" : "cpu:") + std::to_string(i) + "=96MiB";
  }
  if (draft_device >= 0) {
    config.draft->device = "cpu:" + std::to_string(draft_device);
    if (draft_device >= devices) config.draft->device += "=32MiB";
  }
  config.speculation.max_speculative_tokens = num_drafts;
  return config;
}

using Row = std::tuple<std::string, std::string, MemoryPurpose>;  // device, model, purpose

/// Everything a plan asks for, on simulated devices.
class Allocation {
 public:
  Allocation(const PairRequest& request, const Plan& plan) {
    const size_t leader = static_cast<size_t>(plan.main.placement.leader());
    for (const DeviceSpec& spec : request.devices.specs) backends_.push_back(make_backend(spec, 1));
    draft_ = load(*request.plan.draft, *plan.draft, 0, *request.draft_weights, nullptr);
    if (plan.main.placement.ranks() > 1) {
      communicators_ = make_thread_communicators(plan.main.placement.ranks());
    }
    for (size_t rank = 0; rank < plan.main.devices.size(); ++rank) {
      main_.push_back(load(request.plan.main, plan.main, rank, *request.main_weights,
                           communicators_.empty() ? nullptr : communicators_[rank].get()));
    }
    measure("draft", MemoryPurpose::kRoundState, plan.draft->devices[0], [&] {
      drafter_ = std::make_unique<ModelDrafter>(*draft_, main_[leader]->vocab_size(),
                                                std::vector<uint8_t>{});
      drafter_ = RemoteDrafter::around(std::move(drafter_), draft_->backend(), *main_[leader],
                                       request.max_drafts);
    });
    measure("main", MemoryPurpose::kRoundState, plan.main.devices[leader], [&] {
      decoder_ = std::make_unique<SpeculativeDecoder>(*main_[leader], std::move(drafter_),
                                                      request.max_drafts);
    });
  }

  uint64_t allocated_bytes(size_t device) const {
    return backends_[device]->memory().allocated_bytes();
  }
  const std::map<Row, uint64_t>& rows() const { return rows_; }

 private:
  template <typename Work>
  void measure(const std::string& model, MemoryPurpose purpose, size_t device, const Work& work) {
    const uint64_t before = allocated_bytes(device);
    work();
    rows_[{to_string(backends_[device]->device()), model, purpose}] +=
        allocated_bytes(device) - before;
  }

  std::unique_ptr<Transformer> load(const PlannedModel& model, const PlacedModel& placed,
                                    size_t rank, WeightSource& source, Communicator* communicator) {
    Backend& backend = *backends_[placed.devices[rank]];
    auto loaded = std::make_unique<Transformer>(
        model.config, placed.placement.shards[rank], source, backend,
        Transformer::Options{placed.limits, model.role, model.formats, {}}, communicator);
    const std::string device = to_string(backend.device());
    rows_[{device, model.role, MemoryPurpose::kWeights}] = loaded->weights_bytes();
    rows_[{device, model.role, MemoryPurpose::kKvCache}] = loaded->kv_bytes();
    rows_[{device, model.role, MemoryPurpose::kActivations}] = loaded->activation_bytes();
    rows_[{device, model.role, MemoryPurpose::kLogits}] = loaded->logits_bytes();
    return loaded;
  }

  std::vector<std::unique_ptr<Backend>> backends_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
  std::unique_ptr<Transformer> draft_;
  std::vector<std::unique_ptr<Transformer>> main_;
  std::unique_ptr<Drafter> drafter_;
  std::unique_ptr<SpeculativeDecoder> decoder_;
  std::map<Row, uint64_t> rows_;
};

}  // namespace

TEST_CASE("what is allocated is what was planned, byte for byte") {
  const OverheadHistory nothing_measured;
  for (int devices = 1; devices <= 4; ++devices) {
    for (const char* split : {"layer", "tensor"}) {
      for (int num_drafts = 1; num_drafts <= 8; ++num_drafts) {
        // Left to the plan, then on each device in turn and on one of its own.
        const int draft_device = (num_drafts - 1) % (devices + 2) - 1;
        CAPTURE(devices, split, num_drafts, draft_device);
        const PairRequest request = pair_request(demo_on(devices, split, num_drafts, draft_device));
        const Plan plan = make_plan(request.plan, nothing_measured);
        REQUIRE(plan.memory.fits);
        REQUIRE(plan.main.placement.ranks() == devices);
        const Allocation allocation(request, plan);
        for (size_t device = 0; device < plan.memory.devices.size(); ++device) {
          const DevicePlan& planned = plan.memory.devices[device];
          CAPTURE(planned.name);
          CHECK(allocation.allocated_bytes(device) == planned.bytes_of(""));
          for (const MemoryRow& row : planned.rows) {
            if (row.model == "other") continue;
            CAPTURE(row.model, name_of(row.purpose));
            const auto allocated = allocation.rows().find({planned.name, row.model, row.purpose});
            REQUIRE(allocated != allocation.rows().end());
            CHECK(allocated->second == row.bytes);
          }
        }
      }
    }
  }
}
