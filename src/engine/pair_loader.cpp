#include "engine/pair_loader.h"

#include <algorithm>
#include <string>

#include "backend/cpu/thread_pool.h"
#include "comm/nccl_communicator.h"
#include "comm/process_group.h"
#include "comm/socket_communicator.h"
#include "comm/thread_communicator.h"
#include "core/device.h"
#include "core/log.h"
#include "core/size.h"
#include "engine/cost_meter.h"
#include "engine/memory_audit.h"
#include "engine/overhead_meter.h"
#include "engine/pair_request.h"
#include "engine/process_pair.h"
#include "model/sharded_model.h"
#include "spec/auto_length.h"
#include "spec/model_drafter.h"
#include "spec/ngram_drafter.h"
#include "spec/remote_drafter.h"
#include "spec/vocabulary_agreement.h"
#include "tandem/error.h"

namespace tandem {
namespace {

#ifdef NDEBUG
constexpr bool kDebugBuild = false;
#else
constexpr bool kDebugBuild = true;
#endif

/// The bytes of every id that the model and its tokenizer both know.
std::vector<std::optional<std::string>> vocabulary_of(const Tokenizer& tokenizer,
                                                      const ModelConfig& model) {
  std::vector<std::optional<std::string>> vocabulary;
  const int32_t size = std::min(tokenizer.vocab_size(), model.vocab_size);
  vocabulary.reserve(static_cast<size_t>(size));
  for (int32_t id = 0; id < size; ++id) vocabulary.push_back(tokenizer.token_bytes(id));
  return vocabulary;
}

/// The ledger that coordinates this load: the caller's, or one of its own.
std::shared_ptr<MemoryLedger> ledger_for(const EngineOptions& options,
                                         const DeviceChoice& devices) {
  if (options.ledger) return options.ledger;
  const bool real = std::any_of(devices.specs.begin(), devices.specs.end(),
                                [](const DeviceSpec& spec) { return !spec.capacity_bytes; });
  return MemoryLedger::create(real ? MemoryLedger::default_lock_file() : std::filesystem::path());
}

class PairLoader {
 public:
  PairLoader(const Config& config, const EngineOptions& options)
      : config_(config),
        speculation_(config.speculation),
        options_(options),
        group_(options.processes) {}

  LoadedPair load() {
    return telling_others(group_.get(), [this] { return load_whole(); });
  }

  void serve() {
    telling_others(group_.get(), [this] {
      request_ = pair_request(config_);
      require_same_pair(*group_, config_);
      keep_main_to_one_gpu();
      reserve_memory();
      make_backends();
      MemoryAudit audit(plan_.memory);
      load_main(audit);
      check_devices(audit);
      share_memory(*group_, audit);
      pair_.reservation.mark_allocated();
      sharded_->serve();
    });
  }

 private:
  LoadedPair load_whole() {
    request_ = pair_request(config_);
    read_costs();
    if (group_ != nullptr) require_same_pair(*group_, config_);
    keep_main_to_one_gpu();
    describe_models();
    reserve_memory();
    describe_plan();
    make_backends();
    MemoryAudit audit(plan_.memory);
    if (plan_.draft) load_draft(audit);
    load_main(audit);
    if (group_ != nullptr) share_memory(*group_, audit);
    make_decoder(audit);
    check_devices(audit);
    if (measured()) measure_overheads(audit);
    set_costs();
    pair_.reservation.mark_allocated();
    check(audit);
    return std::move(pair_);
  }

  /// Without NCCL, several GPUs cannot share a model; the draft may be on another one.
  void keep_main_to_one_gpu() {
    PlanRequest& plan = request_.plan;
    if (plan.devices.front().id.kind == DeviceKind::kCpu || has_nccl()) return;
    if (group_ != nullptr) {
      throw ConfigError(config_.source +
                        ": GPUs of several processes work together through NCCL, which this build "
                        "lacks: rebuild where libnccl-dev is installed");
    }
    if (plan.choose_devices) {
      plan.most_ranks = 1;
    } else if (plan.main_devices.size() > 1) {
      throw ConfigError(
          config_.source +
          ": \"main.devices\" names several GPUs; this build has no NCCL and runs the "
          "main model on one: rebuild where libnccl-dev is installed, or name one GPU");
    }
  }

  /// Two processes that load onto one GPU would both count its memory as theirs.
  void require_draft_apart_from_others() const {
    if (group_ == nullptr || !plan_.draft) return;
    const size_t seat = plan_.draft->devices.front();
    const DeviceId draft = request_.plan.devices[seat].id;
    const std::vector<size_t>& main = plan_.main.devices;
    if (draft.kind == DeviceKind::kCpu || std::count(main.begin(), main.end(), seat) > 0) return;
    for (const size_t device : main) {
      const int process = process_of_[device];
      // Another host, or a launcher that shows each process its own GPU alone, has one of that
      // name.
      if (process == 0 || group_->process(process).machine != group_->process(0).machine ||
          request_.plan.devices[device].id != draft) {
        continue;
      }
      throw ConfigError(config_.source + ": \"draft.device\" is \"" + to_string(draft) +
                        "\", which " + group_->name_of(process_of_[device]) +
                        " drives; name one of rank 0's, or one that no other process drives");
    }
  }

  /// Before anything is loaded: a table that cannot be read should not cost a load.
  void read_costs() {
    if (!speculation_.cost_table || request_.max_drafts == 0) return;
    costs_ = CostTable::from_file(*speculation_.cost_table);
    if (costs_->max_drafts() >= most_auto_drafts()) return;
    throw ConfigError(speculation_.cost_table->string() + ": \"verify_seconds\" ends at " +
                      std::to_string(costs_->max_drafts()) +
                      " drafts a round, but \"auto\" may choose " +
                      std::to_string(most_auto_drafts()) +
                      ": list more, or lower \"speculation.max_speculative_tokens\"");
  }

  int most_auto_drafts() const {
    return std::min(request_.max_drafts, speculation_.max_speculative_tokens);
  }

  void describe_models() {
    EngineInfo& info = pair_.info;
    const ModelConfig& main = request_.plan.main.config;
    take_warnings(main);
    pair_.tokenizer = Tokenizer::from_folder(config_.main.model);
    pair_.eos_token_ids = main.eos_token_ids;
    info.main_model = config_.main.model.string();
    info.method = speculation_.method;
    info.num_speculative_tokens = request_.num_speculative_tokens;
    info.max_speculative_tokens = request_.max_drafts;
    if (!request_.plan.draft) return;
    take_warnings(request_.plan.draft->config);
    info.draft_model = config_.draft->model.string();
    compare_tokenizers();
  }

  void compare_tokenizers() {
    const Tokenizer draft_tokenizer = Tokenizer::from_folder(config_.draft->model);
    agreement_ = compare_vocabularies(vocabulary_of(*pair_.tokenizer, request_.plan.main.config),
                                      vocabulary_of(draft_tokenizer, request_.plan.draft->config));
    pair_.info.vocabulary_agreement = agreement_.fraction();
    pair_.draft_tokens = agreement_.allowed;
    const std::string refusal = vocabulary_refusal(agreement_);
    if (refusal.empty()) return;
    const std::string message = config_.draft->model.string() + ": " + refusal;
    if (!speculation_.allow_vocabulary_mismatch) throw ModelError(message);
    pair_.info.warnings.push_back(message);
  }

  /// Measures, plans and reserves in one step, so that no other load counts the same bytes.
  void reserve_memory() {
    if (measured()) history_ = OverheadHistory(OverheadHistory::default_file());
    const auto measure = [&] {
      // Every host's lock is held by now.
      if (group_ != nullptr) group_->barrier();
      request_.plan.devices = survey_devices(request_.devices, config_.memory,
                                             group_ == nullptr ? 1 : group_->processes_here());
      before_.clear();
      std::vector<DeviceMemory> memory;
      for (const PlanDevice& device : request_.plan.devices) {
        memory.push_back(
            {to_string(device.id), device.capacity_bytes, device.free_bytes, device.pool});
        before_.push_back({device.free_bytes, 0});
      }
      return memory;
    };
    const auto decide = [&](const std::vector<DeviceMemory>& available) {
      for (size_t i = 0; i < available.size(); ++i) {
        request_.plan.devices[i].free_bytes = available[i].free_bytes;
      }
      make_plan_of_all();
      if (plan_.memory.shortfall) {
        throw MemoryError(config_.source + ": " + plan_.memory.shortfall->message);
      }
      require_draft_apart_from_others();
      std::vector<DeviceBytes> taken;
      for (size_t device = 0; device < plan_.memory.devices.size(); ++device) {
        if (!is_here(device)) continue;
        taken.push_back({to_string(request_.plan.devices[device].id),
                         plan_.memory.devices[device].bytes_of("")});
      }
      return taken;
    };
    // Of the processes of a host, the first one holds the lock for all.
    const std::shared_ptr<MemoryLedger> ledger = group_ != nullptr && group_->index_here() > 0
                                                     ? MemoryLedger::create()
                                                     : ledger_for(options_, request_.devices);
    pair_.reservation = ledger->reserve(measure, decide, options_.cancelled);
  }

  void make_plan_of_all() {
    if (group_ == nullptr) {
      plan_ = make_plan(request_.plan, history_);
      return;
    }
    SharedPlan shared = plan_together(*group_, request_, history_);
    plan_ = std::move(shared.plan);
    process_of_ = std::move(shared.process_of);
    std::vector<DeviceReading> before(process_of_.size());
    const auto first = std::find(process_of_.begin(), process_of_.end(), group_->rank());
    std::copy(before_.begin(), before_.end(), before.begin() + (first - process_of_.begin()));
    before_ = std::move(before);
  }

  /// Whether a device of the plan is this process's.
  bool is_here(size_t device) const {
    return group_ == nullptr || process_of_[device] == group_->rank();
  }

  void describe_plan() {
    EngineInfo& info = pair_.info;
    pair_.plan = plan_.memory;
    info.max_model_len = plan_.main.limits.max_positions;
    const ModelConfig& main = request_.plan.main.config;
    if (!config_.main.max_model_len && info.max_model_len < main.max_position_embeddings) {
      info.warnings.push_back(
          main.source + ": the context is " + std::to_string(info.max_model_len) + " of the " +
          std::to_string(main.max_position_embeddings) + " tokens the model allows: " +
          (info.max_model_len == request_.plan.wanted_context() ? "set main.max_model_len for more"
                                                                : "no more fits in memory"));
    }
    if (!plan_.draft) return;
    info.draft_place = name_of_device(plan_.draft->devices.front()) + ", " + plan_.draft_place;
    log().info("the draft is on {}", info.draft_place);
    info.draft_max_model_len = plan_.draft->limits.max_positions;
    if (info.draft_max_model_len < info.max_model_len) {
      info.warnings.push_back(
          request_.plan.draft->config.source + ": the draft's context ends at " +
          std::to_string(info.draft_max_model_len) + " tokens, the main model's at " +
          std::to_string(info.max_model_len) + "; between them decoding is plain");
    }
  }

  void make_backends() {
    const std::vector<DeviceSpec>& specs = request_.devices.specs;
    std::vector<bool> used(specs.size(), false);
    for (const size_t device : plan_.main.devices) used[device] = is_here(device);
    if (plan_.draft && is_here(plan_.draft->devices.front())) {
      used[plan_.draft->devices.front()] = true;
    }
    // Devices that share the host's cores share them out: their threads spin while they wait.
    const int cores = config_.cpu_threads > 0 ? config_.cpu_threads : available_cores();
    const int processes = group_ == nullptr ? 1 : group_->processes_here();
    const int sharing = static_cast<int>(std::count(used.begin(), used.end(), true)) * processes;
    for (size_t device = 0; device < specs.size(); ++device) {
      pair_.backends.push_back(
          used[device] ? make_backend(specs[device], std::max(1, cores / sharing)) : nullptr);
      if (!used[device]) continue;
      std::string& names = pair_.info.device;
      names += (names.empty() ? "" : "; ") + pair_.backends.back()->description();
    }
    for (int process = 1; group_ != nullptr && process < group_->size(); ++process) {
      pair_.info.device += "; " + group_->name_of(process);
    }
  }

  Transformer::Options options_for(const PlannedModel& model, const PlacedModel& placed) const {
    Transformer::Options wanted{placed.limits, model.role, model.formats, {}};
    wanted.progress = [this, role = model.role](uint64_t done, uint64_t total) {
      if (options_.on_load) options_.on_load(role, done, total);
      if (options_.cancelled && options_.cancelled()) {
        throw CancelledError("loading the " + role + " model was cancelled");
      }
      if (group_ != nullptr) group_->check();
    };
    return wanted;
  }

  void load_draft(MemoryAudit& audit) {
    const PlannedModel& model = *request_.plan.draft;
    const PlacedModel& placed = *plan_.draft;
    Backend& backend = *pair_.backends[placed.devices.front()];
    const std::unique_ptr<WeightSource> source = request_.draft_checkpoint.open();
    pair_.draft = std::make_unique<Transformer>(model.config, placed.placement.shards.front(),
                                                *source, backend, options_for(model, placed));
    take_bytes(audit, placed.devices.front(), model.role, *pair_.draft);
  }

  void load_main(MemoryAudit& audit) {
    const PlannedModel& model = request_.plan.main;
    const PlacedModel& placed = plan_.main;
    const auto open = [this] { return request_.main_checkpoint.open(); };
    const Transformer::Options options = options_for(model, placed);
    if (placed.placement.ranks() == 1) {
      const std::unique_ptr<WeightSource> source = open();
      auto whole =
          std::make_unique<Transformer>(model.config, placed.placement.shards.front(), *source,
                                        *pair_.backends[placed.devices.front()], options);
      take_bytes(audit, placed.devices.front(), model.role, *whole);
      pair_.main = std::move(whole);
    } else {
      const std::vector<size_t> here = ranks_here();
      std::vector<std::unique_ptr<Communicator>> communicators = make_communicators(audit);
      std::vector<ShardedModel::Rank> ranks;
      for (size_t i = 0; i < here.size(); ++i) {
        ranks.push_back({placed.placement.shards[here[i]],
                         pair_.backends[placed.devices[here[i]]].get(),
                         std::move(communicators[i])});
      }
      auto sharded = std::make_unique<ShardedModel>(model.config, std::move(ranks), open, options,
                                                    ShardedModel::kPassLimit, group_);
      for (size_t i = 0; i < here.size(); ++i) {
        take_bytes(audit, placed.devices[here[i]], model.role, sharded->rank(static_cast<int>(i)));
      }
      const std::string sums = sharded->choose_all_reduce(all_reduce());
      if (!sums.empty()) log().info("{}", sums);
      sharded_ = sharded.get();
      pair_.main = std::move(sharded);
    }
  }

  /// The main model's ranks in this process; they follow one another.
  std::vector<size_t> ranks_here() const {
    std::vector<size_t> ranks;
    for (size_t rank = 0; rank < plan_.main.devices.size(); ++rank) {
      if (is_here(plan_.main.devices[rank])) ranks.push_back(rank);
    }
    return ranks;
  }

  AllReduce all_reduce() const {
    const std::string& wanted = config_.communication.all_reduce;
    return wanted == "nccl"   ? AllReduce::kNccl
           : wanted == "peer" ? AllReduce::kPeer
                              : AllReduce::kAuto;
  }

  /// One for each rank of the main model in this process. What NCCL takes of the devices' memory is
  /// measured for the next plan.
  std::vector<std::unique_ptr<Communicator>> make_communicators(MemoryAudit& audit) {
    const PlacedModel& placed = plan_.main;
    const int ranks = placed.placement.ranks();
    const std::vector<size_t> here = ranks_here();
    const auto first = static_cast<int>(here.front());
    if (!measured()) {
      return group_ == nullptr
                 ? make_thread_communicators(ranks)
                 : make_socket_communicators(group_, ranks, first, static_cast<int>(here.size()));
    }
    std::vector<int> devices;
    std::vector<uint64_t> free;
    for (const size_t rank : here) {
      devices.push_back(request_.plan.devices[placed.devices[rank]].id.index);
      free.push_back(memory_of(placed.devices[rank]).free_bytes());
    }
    const Traffic traffic = traffic_of(placed.placement.split);
    auto communicators =
        group_ == nullptr ? make_nccl_communicators(draw_nccl_id(), ranks, first, devices, traffic)
                          : make_nccl_communicators(*group_, ranks, first, devices, traffic);
    for (size_t i = 0; i < here.size(); ++i) {
      const size_t device = placed.devices[here[i]];
      const uint64_t left = memory_of(device).free_bytes();
      const uint64_t taken = free[i] > left ? free[i] - left : 0;
      audit.add(name_of_device(device), "main", MemoryPurpose::kCommunicator, taken);
      history_.record({request_.devices.hardware[device], MemoryPurpose::kCommunicator, ranks,
                       placed.placement.split},
                      taken);
      // Not the context's, which is what the device lost since then.
      before_[device].free_bytes -= std::min(taken, before_[device].free_bytes);
    }
    return communicators;
  }

  void take_bytes(MemoryAudit& audit, size_t device, const std::string& role,
                  const Transformer& model) const {
    const std::string name = name_of_device(device);
    audit.add(name, role, MemoryPurpose::kWeights, model.weights_bytes());
    audit.add(name, role, MemoryPurpose::kKvCache, model.kv_bytes());
    audit.add(name, role, MemoryPurpose::kActivations, model.activation_bytes());
    audit.add(name, role, MemoryPurpose::kLogits, model.logits_bytes());
  }

  std::string name_of_device(size_t device) const { return request_.plan.devices[device].name(); }

  uint64_t weights_of(std::string_view role) const {
    uint64_t sum = 0;
    for (const MemoryUse& use : pair_.memory) {
      if (use.model == role && use.purpose == MemoryPurpose::kWeights) sum += use.actual_bytes;
    }
    return sum;
  }

  void compare_sizes() {
    const uint64_t draft_bytes = weights_of("draft");
    const uint64_t main_bytes = weights_of("main");
    if (draft_bytes <= main_bytes) return;
    pair_.info.warnings.push_back("the draft model (" + format_size(draft_bytes) +
                                  " of weights) is larger than the main model (" +
                                  format_size(main_bytes) +
                                  "): drafting will cost more than it saves; are the two swapped?");
  }

  void make_decoder(MemoryAudit& audit) {
    const auto allocated = [this](size_t device) { return memory_of(device).allocated_bytes(); };
    std::unique_ptr<Drafter> drafter;
    if (plan_.draft) {
      const size_t device = plan_.draft->devices.front();
      const uint64_t before = allocated(device);
      drafter = std::make_unique<ModelDrafter>(*pair_.draft, pair_.main->vocab_size(),
                                               agreement_.allowed);
      drafter = RemoteDrafter::around(std::move(drafter), pair_.draft->backend(), *pair_.main,
                                      request_.max_drafts);
      audit.add(name_of_device(device), "draft", MemoryPurpose::kRoundState,
                allocated(device) - before);
    } else if (speculation_.method == "ngram") {
      drafter =
          std::make_unique<NgramDrafter>(pair_.main->backend(), speculation_.prompt_lookup_min,
                                         speculation_.prompt_lookup_max, pair_.info.max_model_len);
    }
    const size_t leader = plan_.leader_device();
    const uint64_t before = allocated(leader);
    auto policy = std::make_unique<AutoLength>(most_auto_drafts());
    policy_ = policy.get();
    pair_.decoder = std::make_unique<SpeculativeDecoder>(*pair_.main, std::move(drafter),
                                                         request_.max_drafts, std::move(policy));
    audit.add(name_of_device(leader), "main", MemoryPurpose::kRoundState,
              allocated(leader) - before);
  }

  /// Whether the devices take memory that no formula gives. The CPU's do not: see
  /// expected_overheads.
  bool measured() const { return request_.plan.devices.front().id.kind != DeviceKind::kCpu; }

  /// Every backend is this load's own: what it handed out, it handed out for the plan.
  void check_devices(MemoryAudit& audit) const {
    for (size_t device = 0; device < pair_.backends.size(); ++device) {
      if (pair_.backends[device] == nullptr) continue;
      audit.add_device(name_of_device(device), pair_.backends[device]->memory().allocated_bytes());
    }
  }

  /// Lets the devices take what they take in the first rounds, before the reservation tells others
  /// that everything is taken, and files it for the next plan.
  void measure_overheads(MemoryAudit& audit) {
    std::vector<DeviceReading> loaded(pair_.backends.size());
    for (size_t device = 0; device < pair_.backends.size(); ++device) {
      if (pair_.backends[device] != nullptr) loaded[device] = read_device(memory_of(device));
    }
    warm_up();
    for (size_t device = 0; device < pair_.backends.size(); ++device) {
      if (pair_.backends[device] == nullptr) continue;
      const MeasuredOverheads measured =
          measured_overheads(before_[device], loaded[device], read_device(memory_of(device)));
      std::vector<std::string> models;
      if (plan_.draft && plan_.draft->devices.front() == device) models.push_back("draft");
      if (std::count(plan_.main.devices.begin(), plan_.main.devices.end(), device) > 0) {
        models.push_back("main");
      }
      const int count = static_cast<int>(models.size());
      const std::string name = name_of_device(device);
      audit.add(name, "device", MemoryPurpose::kContext, measured.context_bytes.value_or(0));
      for (const std::string& model : models) {
        audit.add(name, model, MemoryPurpose::kWorkspaces,
                  share_of_model(measured.workspaces_bytes, count));
        audit.add(name, model, MemoryPurpose::kGraphs,
                  share_of_model(measured.graphs_bytes.value_or(0), count));
      }
      record_overheads(history_, request_.devices.hardware[device], count, measured);
    }
  }

  /// A prompt of the widest pass that fits, and greedy rounds with every number of drafts.
  void warm_up() {
    const int room = pair_.main->max_positions() - (request_.max_drafts + 1);
    const int length = std::clamp(room, 1, pair_.main->max_rows() + 1);  // the last is no pass's
    const std::vector<int32_t> prompt(static_cast<size_t>(length), 0);
    DecodeSettings settings;
    settings.num_speculative_tokens = request_.max_drafts;
    pair_.decoder->start(prompt, settings);
    pair_.decoder->round(request_.max_drafts + 1);
    while (settings.num_speculative_tokens-- > 0) {
      if (options_.cancelled && options_.cancelled()) {
        throw CancelledError("loading was cancelled in its first rounds");
      }
      pair_.decoder->restart(settings);
      pair_.decoder->round(request_.max_drafts + 1);
    }
  }

  /// What the draft length "auto" goes by.
  void set_costs() {
    if (request_.max_drafts == 0) return;
    CostTable& costs = pair_.info.costs;
    if (costs_) {
      costs = *costs_;
    } else {
      costs = measure_costs(*pair_.decoder, pair_.info.max_model_len, request_.max_drafts,
                            options_.cancelled);
      log().info(
          "a plain step takes {:.3f} ms, a round of {} drafts {:.3f} ms of drafting and {:.3f} ms "
          "of verification",
          1e3 * costs.round_seconds(0), request_.max_drafts,
          1e3 * costs.draft_seconds(request_.max_drafts), 1e3 * costs.verify_seconds.back());
    }
    policy_->set_costs(costs, /*learn=*/!costs_);
  }

  const MemoryResource& memory_of(size_t device) const { return pair_.backends[device]->memory(); }

  void check(const MemoryAudit& audit) {
    pair_.memory = audit.uses();
    compare_sizes();
    const std::string difference = audit.difference();
    if (difference.empty()) return;
    if (kDebugBuild) throw Error(difference);
    log().warn("{}", difference);
  }

  void take_warnings(const ModelConfig& model) {
    auto& warnings = pair_.info.warnings;
    warnings.insert(warnings.end(), model.warnings.begin(), model.warnings.end());
  }

  const Config& config_;
  const Config::Speculation& speculation_;
  const EngineOptions& options_;
  const std::shared_ptr<ProcessGroup> group_;  ///< null for a process by itself
  std::vector<int> process_of_;                ///< by device of the plan, in a group
  PairRequest request_;
  OverheadHistory history_;
  std::vector<DeviceReading> before_;  ///< by device, when the plan was made
  Plan plan_;
  VocabularyAgreement agreement_;
  std::optional<CostTable> costs_;   ///< the configuration's
  AutoLength* policy_ = nullptr;     ///< the decoder's
  ShardedModel* sharded_ = nullptr;  ///< the pair's main model, where several ranks share it
  LoadedPair pair_;
};

}  // namespace

LoadedPair load_pair(const Config& config, const EngineOptions& options) {
  config.validate();
  return PairLoader(config, options).load();
}

void serve_pair(const Config& config, const EngineOptions& options) {
  config.validate();
  PairLoader(config, options).serve();
}

}  // namespace tandem
