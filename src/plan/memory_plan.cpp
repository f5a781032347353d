#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "plan/overhead_history.h"
#include "tandem/error.h"
#include "tandem/plan.h"

namespace tandem {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::array kPurposeNames = {
    std::pair{MemoryPurpose::kWeights, std::string_view("weights")},
    std::pair{MemoryPurpose::kKvCache, std::string_view("kv_cache")},
    std::pair{MemoryPurpose::kActivations, std::string_view("activations")},
    std::pair{MemoryPurpose::kLogits, std::string_view("logits")},
    std::pair{MemoryPurpose::kRoundState, std::string_view("round_state")},
    std::pair{MemoryPurpose::kWorkspaces, std::string_view("workspaces")},
    std::pair{MemoryPurpose::kCommunicator, std::string_view("communicator")},
    std::pair{MemoryPurpose::kGraphs, std::string_view("graphs")},
    std::pair{MemoryPurpose::kContext, std::string_view("context")},
    std::pair{MemoryPurpose::kInUse, std::string_view("in_use")},
    std::pair{MemoryPurpose::kBeyondLimit, std::string_view("beyond_limit")},
};

constexpr std::string_view kOther = "other";

ordered_json to_object(const DevicePlan& device) {
  ordered_json rows = ordered_json::array();
  for (const MemoryRow& row : device.rows) {
    rows.push_back({{"model", row.model}, {"purpose", name_of(row.purpose)}, {"bytes", row.bytes}});
  }
  return {{"name", device.name},
          {"capacity_bytes", device.capacity_bytes},
          {"reserve_bytes", device.reserve_bytes},
          {"free_bytes", device.free_bytes},
          {"rows", std::move(rows)}};
}

ordered_json to_object(const ModelPlacement& placement) {
  ordered_json layers = ordered_json::array();
  for (const ModelPlacement::Run& run : placement.layers) layers.push_back({run.first, run.last});
  return {{"model", placement.model},
          {"split", placement.split},
          {"devices", placement.devices},
          {"layers", std::move(layers)}};
}

DevicePlan device_from(const json& object) {
  DevicePlan device;
  device.name = object.at("name").get<std::string>();
  device.capacity_bytes = object.at("capacity_bytes").get<uint64_t>();
  device.reserve_bytes = object.at("reserve_bytes").get<uint64_t>();
  device.free_bytes = object.at("free_bytes").get<uint64_t>();
  for (const json& row : object.at("rows")) {
    device.rows.push_back({row.at("model").get<std::string>(),
                           memory_purpose(row.at("purpose").get<std::string>()),
                           row.at("bytes").get<uint64_t>()});
  }
  return device;
}

ModelPlacement placement_from(const json& object) {
  ModelPlacement placement;
  placement.model = object.at("model").get<std::string>();
  placement.split = object.at("split").get<std::string>();
  placement.devices = object.at("devices").get<std::vector<std::string>>();
  for (const json& run : object.at("layers")) {
    placement.layers.push_back({run.at(0).get<int>(), run.at(1).get<int>()});
  }
  return placement;
}

}  // namespace

std::string_view name_of(MemoryPurpose purpose) {
  for (const auto& [value, name] : kPurposeNames) {
    if (value == purpose) return name;
  }
  return "?";
}

MemoryPurpose memory_purpose(std::string_view name) {
  for (const auto& [value, known] : kPurposeNames) {
    if (known == name) return value;
  }
  throw ConfigError("memory purpose '" + std::string(name) + "' is unknown");
}

uint64_t DevicePlan::bytes_of(std::string_view model) const {
  uint64_t sum = 0;
  for (const MemoryRow& row : rows) {
    if (model.empty() ? row.model != kOther : row.model == model) sum += row.bytes;
  }
  return sum;
}

const DevicePlan* MemoryPlan::device(std::string_view name) const {
  const auto found = std::find_if(devices.begin(), devices.end(),
                                  [&](const DevicePlan& entry) { return entry.name == name; });
  return found == devices.end() ? nullptr : &*found;
}

std::string MemoryPlan::to_json() const {
  ordered_json document;
  document["fits"] = fits;
  document["devices"] = ordered_json::array();
  for (const DevicePlan& entry : devices) document["devices"].push_back(to_object(entry));
  document["max_model_len"] = max_model_len;
  document["placement"] = ordered_json::array();
  for (const ModelPlacement& model : placement) document["placement"].push_back(to_object(model));
  document["shortfall"] = nullptr;
  if (shortfall) {
    document["shortfall"] = {{"device", shortfall->device},
                             {"bytes", shortfall->bytes},
                             {"max_model_len", shortfall->max_model_len},
                             {"message", shortfall->message}};
  }
  return document.dump();
}

MemoryPlan MemoryPlan::from_json(std::string_view text) {
  try {
    const json document = json::parse(text);
    MemoryPlan plan;
    plan.fits = document.at("fits").get<bool>();
    for (const json& object : document.at("devices")) plan.devices.push_back(device_from(object));
    plan.max_model_len = document.at("max_model_len").get<int>();
    for (const json& object : document.at("placement"))
      plan.placement.push_back(placement_from(object));
    if (const json& lack = document.at("shortfall"); !lack.is_null()) {
      plan.shortfall = MemoryShortfall{
          lack.at("device").get<std::string>(), lack.at("bytes").get<uint64_t>(),
          lack.at("max_model_len").get<int>(), lack.at("message").get<std::string>()};
    }
    return plan;
  } catch (const json::exception& error) {
    throw ConfigError(std::string("memory plan: ") + error.what());
  }
}

}  // namespace tandem
