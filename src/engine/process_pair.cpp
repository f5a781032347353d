#include "engine/process_pair.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using nlohmann::json;

/// FNV-1a.
class Hash {
 public:
  void add(std::string_view bytes) {
    for (const char byte : bytes) {
      hash_ = (hash_ ^ static_cast<unsigned char>(byte)) * 0x100000001b3ull;
    }
  }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325ull;
};

/// Tells models apart without reading them whole: their files' names and sizes, and samples of what
/// they hold.
uint64_t fingerprint(const std::filesystem::path& folder) {
  constexpr uint64_t kSampleBytes = 16u << 10, kSamples = 32;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string kind = entry.path().extension().string();
    if (kind == ".safetensors" || entry.path().filename() == "config.json") {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  Hash hash;
  std::string sample;
  for (const auto& file : files) {
    const uint64_t size = std::filesystem::file_size(file);
    hash.add(file.filename().string() + " " + std::to_string(size));
    std::ifstream stream(file, std::ios::binary);
    const uint64_t step = std::max(size / kSamples, kSampleBytes);
    for (uint64_t at = 0; at < size; at += step) {
      sample.resize(std::min(kSampleBytes, size - at));
      stream.seekg(static_cast<std::streamoff>(at));
      stream.read(sample.data(), static_cast<std::streamsize>(sample.size()));
      hash.add(sample);
    }
  }
  return hash.value();
}

/// What all processes have to say alike; where models lie and which devices serve is each one's
/// own.
json common_part(const Config& config) {
  json common = json::parse(config.to_json());
  for (const char* const own : {"sampling", "memory", "$schema"}) common.erase(own);
  for (const char* const model : {"main", "draft"}) {
    if (!common.contains(model)) continue;
    for (const char* const own : {"model", "devices", "device"}) common[model].erase(own);
  }
  common["speculation"].erase("cost_table");
  return common.flatten();
}

/// "/main/split" as "main.split".
std::string dotted(std::string pointer) {
  pointer.erase(0, 1);
  std::replace(pointer.begin(), pointer.end(), '/', '.');
  return pointer;
}

std::string difference(const json& theirs, const json& rank_0s) {
  const auto value = [](const json& all, const std::string& key) {
    return all.contains(key) ? all[key].dump() : std::string("not given");
  };
  json keys = theirs;
  keys.update(rank_0s);
  for (const auto& item : keys.items()) {
    const std::string there = value(theirs, item.key()), here = value(rank_0s, item.key());
    if (there != here) {
      return dotted(item.key()) + " is " + there + " there and " + here + " at rank 0";
    }
  }
  return {};
}

json to_json(const PlanDevice& device) {
  return {{"kind", static_cast<int>(device.id.kind)},
          {"index", device.id.index},
          {"hardware", device.hardware},
          {"capacity", device.capacity_bytes},
          {"free", device.free_bytes},
          {"reserve", device.reserve_bytes},
          {"limit", device.limit_bytes ? json(*device.limit_bytes) : json()},
          {"has_context", device.has_context}};
}

PlanDevice device_from(const json& text) {
  PlanDevice device;
  device.id = {static_cast<DeviceKind>(text.at("kind").get<int>()), text.at("index").get<int>()};
  device.hardware = text.at("hardware").get<std::string>();
  device.capacity_bytes = text.at("capacity").get<uint64_t>();
  device.free_bytes = text.at("free").get<uint64_t>();
  device.reserve_bytes = text.at("reserve").get<uint64_t>();
  if (!text.at("limit").is_null()) device.limit_bytes = text.at("limit").get<uint64_t>();
  device.has_context = text.at("has_context").get<bool>();
  return device;
}

/// What a process brings: its devices, those of them that the main model takes, and the draft's.
std::string offer_of(const PairRequest& request) {
  json offer;
  for (const PlanDevice& device : request.plan.devices) offer["devices"].push_back(to_json(device));
  offer["main"] = request.plan.main_devices;
  offer["draft"] = request.plan.draft_device ? json(*request.plan.draft_device) : json();
  return offer.dump();
}

/// Puts every process's devices into the request; their names say whose they are.
SharedPlan join_devices(ProcessGroup& group, PairRequest& request,
                        std::vector<std::vector<size_t>>& main_devices) {
  const std::vector<std::string> offers = group.all_gather(offer_of(request));
  const std::vector<DeviceSpec> own = request.devices.specs;
  SharedPlan shared;
  request.plan.devices.clear();
  request.devices.specs.clear();
  request.devices.hardware.clear();
  request.plan.draft_device.reset();
  for (int process = 0; process < group.size(); ++process) {
    const json offer = json::parse(offers[static_cast<size_t>(process)]);
    const size_t first = request.plan.devices.size();
    for (const json& text : offer.at("devices")) {
      PlanDevice device = device_from(text);
      device.label = "rank " + std::to_string(process) + "'s " + to_string(device.id);
      request.devices.hardware.push_back(device.hardware);
      request.devices.specs.push_back(process == group.rank()
                                          ? own.at(request.plan.devices.size() - first)
                                          : DeviceSpec{device.id, std::nullopt});
      request.plan.devices.push_back(std::move(device));
      shared.process_of.push_back(process);
    }
    main_devices.emplace_back();
    for (const json& index : offer.at("main")) {
      main_devices.back().push_back(first + index.get<size_t>());
    }
    if (process == 0 && !offer.at("draft").is_null()) {
      request.plan.draft_device = offer.at("draft").get<size_t>();
    }
  }
  request.plan.choose_devices = false;
  return shared;
}

/// The plan for one of the splits.
Plan plan_split(PairRequest& request, SplitChoice split, const OverheadHistory& history,
                std::vector<std::vector<size_t>> main_devices, std::optional<size_t> draft_device) {
  const size_t leader =
      split == SplitChoice::kTensor ? main_devices.front().front() : main_devices.front().back();
  if (split == SplitChoice::kLayer) std::reverse(main_devices.begin(), main_devices.end());
  request.plan.main_devices.clear();
  for (const std::vector<size_t>& devices : main_devices) {
    request.plan.main_devices.insert(request.plan.main_devices.end(), devices.begin(),
                                     devices.end());
  }
  request.plan.split = split;
  if (request.plan.draft) request.plan.draft_device = draft_device.value_or(leader);
  return make_plan(request.plan, history);
}

}  // namespace

Config config_of_process(Config config, const ProcessGroup& group) {
  if (config.main.devices != "auto") return config;
  const std::vector<DeviceId> ids = list_device_ids();
  const auto gpus = static_cast<int>(std::count_if(
      ids.begin(), ids.end(), [](DeviceId id) { return id.kind == DeviceKind::kCuda; }));
  if (gpus == 0) {
    config.main.devices = "cpu";
    return config;
  }
  // Slurm may show each process its own GPU alone.
  const int index = gpus == 1 ? 0 : group.local_rank();
  if (index >= gpus) {
    throw ConfigError(config.source + ": local rank " + std::to_string(group.local_rank()) +
                      " drives cuda:" + std::to_string(index) + ", but this host has " +
                      std::to_string(gpus) +
                      " GPUs; start fewer processes, or name \"main.devices\"");
  }
  config.main.devices = "cuda:" + std::to_string(index);
  return config;
}

void require_same_pair(ProcessGroup& group, const Config& config) {
  group.describe_devices(config.main.devices);
  json own = {{"config", common_part(config)}, {"main", fingerprint(config.main.model)}};
  if (config.speculation.method == "draft_model" && config.draft) {
    own["draft"] = fingerprint(config.draft->model);
  }
  const std::vector<std::string> all = group.all_gather(own.dump());
  const json rank_0s = json::parse(all.front());
  for (int rank = 1; rank < group.size(); ++rank) {
    const json theirs = json::parse(all[static_cast<size_t>(rank)]);
    const std::string differs = difference(theirs.at("config"), rank_0s.at("config"));
    if (!differs.empty()) {
      throw ConfigError(group.name_of(rank) + " has another configuration than rank 0: " + differs);
    }
    for (const char* const role : {"main", "draft"}) {
      if (!rank_0s.contains(role) || theirs.at(role) == rank_0s.at(role)) continue;
      throw ModelError(group.name_of(rank) + " has another " + role +
                       " model than rank 0: the files in its folder differ");
    }
  }
}

SharedPlan plan_together(ProcessGroup& group, PairRequest& request,
                         const OverheadHistory& history) {
  std::vector<std::vector<size_t>> main_devices;
  const SplitChoice wanted = request.plan.split;
  SharedPlan shared = join_devices(group, request, main_devices);
  const OverheadHistory rank_0s = OverheadHistory::from_json(group.broadcast(history.to_json()));
  const std::optional<size_t> draft_device = request.plan.draft_device;
  const auto plan = [&](SplitChoice split) {
    return plan_split(request, split, rank_0s, main_devices, draft_device);
  };
  size_t ranks = 0;
  for (const std::vector<size_t>& devices : main_devices) ranks += devices.size();
  const bool tensor = wanted == SplitChoice::kTensor ||
                      (wanted == SplitChoice::kAuto &&
                       !tensor_split_obstacle(request.plan.main.config, static_cast<int>(ranks)));
  shared.plan = plan(tensor ? SplitChoice::kTensor : SplitChoice::kLayer);
  if (shared.plan.memory.shortfall && wanted == SplitChoice::kAuto && tensor) {
    shared.plan = plan(SplitChoice::kLayer);
  }
  const std::vector<std::string> plans = group.all_gather(shared.plan.memory.to_json());
  for (int rank = 1; rank < group.size(); ++rank) {
    if (plans[static_cast<size_t>(rank)] == plans.front()) continue;
    throw ConfigError(group.name_of(rank) +
                      " plans otherwise than rank 0; do all hosts run the same build of tandem?");
  }
  return shared;
}

void share_memory(ProcessGroup& group, MemoryAudit& audit) {
  json own = {{"uses", json::array()}, {"devices", json::array()}};
  if (group.rank() != 0) {
    for (const MemoryUse& use : audit.uses()) {
      if (use.actual_bytes == 0) continue;
      own["uses"].push_back({use.device, use.model, name_of(use.purpose), use.actual_bytes});
    }
    for (const DeviceBytes& device : audit.devices()) {
      own["devices"].push_back({device.device, device.bytes});
    }
  }
  const std::vector<std::string> all = group.all_gather(own.dump());
  if (group.rank() != 0) return;
  for (const std::string& text : all) {
    const json theirs = json::parse(text);
    for (const json& use : theirs.at("uses")) {
      audit.add(use.at(0).get<std::string>(), use.at(1).get<std::string>(),
                memory_purpose(use.at(2).get<std::string>()), use.at(3).get<uint64_t>());
    }
    for (const json& device : theirs.at("devices")) {
      audit.add_device(device.at(0).get<std::string>(), device.at(1).get<uint64_t>());
    }
  }
}

}  // namespace tandem
