#include "plan/plan_table.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <span>
#include <string_view>
#include <vector>

#include "core/size.h"
#include "tandem/speedup.h"

namespace tandem {
namespace {

constexpr size_t kBarCells = 48;
constexpr int kPurposeWidth = 14;
constexpr int kSizeWidth = 12;

enum BarPart : size_t { kDraftPart, kMainPart, kOtherPart, kReservePart, kFreePart, kBarParts };
constexpr std::array<std::string_view, kBarParts> kGlyphs = {"▒", "█", "▚", "╌", "·"};
constexpr const char* kLegend = "▒ draft   █ main   ▚ context, others   ╌ reserve   · free\n";

std::string padded_left(const std::string& text, int width) {
  const int missing = width - static_cast<int>(text.size());
  return missing > 0 ? std::string(static_cast<size_t>(missing), ' ') + text : text;
}

std::string padded_right(const std::string& text, int width) {
  const int missing = width - static_cast<int>(text.size());
  return missing > 0 ? text + std::string(static_cast<size_t>(missing), ' ') : text;
}

/// Shares out the bar's cells; whatever is there at all gets a cell.
std::array<size_t, kBarParts> cells_of(const std::array<uint64_t, kBarParts>& bytes) {
  double total = 0;
  for (const uint64_t part : bytes) total += static_cast<double>(part);
  std::array<size_t, kBarParts> cells{};
  size_t used = 0;
  for (size_t part = 0; part < kBarParts; ++part) {
    if (bytes[part] == 0) continue;
    const double share = static_cast<double>(bytes[part]) / total * static_cast<double>(kBarCells);
    cells[part] = std::max<size_t>(1, static_cast<size_t>(share + 0.5));
    used += cells[part];
  }
  size_t& largest = *std::max_element(cells.begin(), cells.end());
  largest = used > kBarCells ? largest - (used - kBarCells)
                             : largest + (used == 0 ? 0 : kBarCells - used);
  return cells;
}

std::string bar(const DevicePlan& device) {
  std::array<uint64_t, kBarParts> bytes{};
  bytes[kDraftPart] = device.bytes_of("draft");
  bytes[kMainPart] = device.bytes_of("main");
  bytes[kOtherPart] = device.bytes_of("device") + device.bytes_of("other");
  bytes[kReservePart] = device.reserve_bytes;
  bytes[kFreePart] = device.free_bytes;
  const std::array<size_t, kBarParts> cells = cells_of(bytes);
  std::string text;
  for (size_t part = 0; part < kBarParts; ++part) {
    for (size_t i = 0; i < cells[part]; ++i) text += kGlyphs[part];
  }
  return text;
}

/// Bytes of one purpose, draft and main apart.
struct PurposeLine {
  std::string_view purpose;
  uint64_t draft = 0;
  uint64_t main = 0;
  uint64_t other = 0;
};

std::vector<PurposeLine> purpose_lines(const DevicePlan& device) {
  std::vector<PurposeLine> lines;
  for (const MemoryRow& row : device.rows) {
    const std::string_view purpose = name_of(row.purpose);
    auto line = std::find_if(lines.begin(), lines.end(),
                             [&](const PurposeLine& known) { return known.purpose == purpose; });
    if (line == lines.end()) line = lines.insert(lines.end(), PurposeLine{purpose});
    (row.model == "draft"  ? line->draft
     : row.model == "main" ? line->main
                           : line->other) += row.bytes;
  }
  return lines;
}

std::string cell(uint64_t bytes) {
  return padded_left(bytes == 0 ? "-" : format_size(bytes), kSizeWidth);
}

std::string table_line(std::string_view purpose, uint64_t draft, uint64_t main, uint64_t total) {
  return "  " + padded_right(std::string(purpose), kPurposeWidth) + cell(draft) + cell(main) +
         cell(total) + "\n";
}

std::string device_table(const DevicePlan& device, const MemoryPlan& plan) {
  std::string text =
      device.name + "  " + format_size(device.capacity_bytes) + "\n  " + bar(device) + "\n";
  if (device.bytes_of("") == 0 && plan.fits) return text + "  not used\n";
  text += "  " + padded_right("", kPurposeWidth) + padded_left("draft", kSizeWidth) +
          padded_left("main", kSizeWidth) + padded_left("in all", kSizeWidth) + "\n";
  for (const PurposeLine& line : purpose_lines(device)) {
    text += table_line(line.purpose, line.draft, line.main, line.draft + line.main + line.other);
  }
  text += table_line("reserve", 0, 0, device.reserve_bytes);
  const uint64_t wanted = device.reserve_bytes + device.bytes_of("") + device.bytes_of("other");
  if (wanted > device.capacity_bytes) {
    return text + table_line("MISSING", 0, 0, wanted - device.capacity_bytes);
  }
  return text + table_line("free", 0, 0, device.free_bytes);
}

std::string placement_line(const ModelPlacement& model, const std::string& reason) {
  std::string text = padded_right(model.model, 6);
  if (model.devices.size() > 1) text += model.split + " split: ";
  for (size_t i = 0; i < model.devices.size(); ++i) {
    if (i > 0) text += ", ";
    text += model.devices[i];
    if (model.split != "tensor") {
      text += " layers " + std::to_string(model.layers[i].first) + "–" +
              std::to_string(model.layers[i].last);
    }
  }
  if (model.split == "tensor")
    text += ", each a share of all " + std::to_string(model.layers[0].last + 1) + " layers";
  if (!reason.empty()) text += ": " + reason;
  return text + "\n";
}

std::string context_line(const PlanRequest& request, const Plan& plan) {
  const int limit = request.main.config.max_position_embeddings;
  const int length = plan.memory.max_model_len;
  std::string text = "context " + std::to_string(length) + " tokens";
  if (!plan.memory.fits) {
    text += ", which does not fit";
  } else if (length == limit) {
    text += ", the model's own limit";
  } else if (request.max_model_len) {
    text += ", as configured (the model's own limit is " + std::to_string(limit) + ")";
  } else if (length == request.wanted_context()) {
    text += " of " + std::to_string(limit) + "; set main.max_model_len for more";
  } else {
    text += ", the largest that fits (the model's own limit is " + std::to_string(limit) + ")";
  }
  if (plan.draft && plan.draft->limits.max_positions < length) {
    text += "; plain decoding beyond " + std::to_string(plan.draft->limits.max_positions) +
            ", the draft's limit";
  }
  return text + "\n";
}

double cost_ratio(const Plan& plan, const DraftOutlook& outlook) {
  return outlook.kind == DraftOutlook::Kind::kModel ? plan.cost_ratio() : 0;
}

/// What pays most when every drafted token stands with this chance.
SpeedupPrediction best_at(double acceptance_rate, double ratio, const DraftOutlook& outlook) {
  return best_speedup(bandwidth_costs(ratio, outlook.max_drafts), std::span(&acceptance_rate, 1));
}

std::string speedup_table(const Plan& plan, const DraftOutlook& outlook) {
  if (outlook.kind == DraftOutlook::Kind::kNone) return "";
  const double ratio = cost_ratio(plan, outlook);
  char line[160];
  if (outlook.kind == DraftOutlook::Kind::kModel) {
    std::snprintf(line, sizeof line, "a draft pass reads %s, a main pass %s: cost ratio b = %.3f\n",
                  format_size(plan.draft_pass_bytes).c_str(),
                  format_size(plan.main_pass_bytes).c_str(), ratio);
  } else {
    std::snprintf(line, sizeof line,
                  "drafts are looked up in the text and read no weights: cost ratio b = 0\n");
  }
  std::string text = std::string("\n") + line;
  text += "  acceptance rate   best K   predicted speed-up E / (1 + K b)\n";
  for (const double rate : kTableAcceptanceRates) {
    const SpeedupPrediction best = best_at(rate, ratio, outlook);
    std::snprintf(line, sizeof line, "  %15.1f   %6d   %8.2f×%s\n", rate, best.num_drafts,
                  best.speedup, best.speedup > 1 ? "" : "  no gain");
    text += line;
  }
  return text;
}

}  // namespace

std::string plan_table(const PlanRequest& request, const Plan& plan, const DraftOutlook& outlook) {
  std::string text;
  for (const DevicePlan& device : plan.memory.devices)
    text += device_table(device, plan.memory) + "\n";
  text += kLegend;
  for (const ModelPlacement& model : plan.memory.placement) {
    text += placement_line(model, model.model == "draft" ? plan.draft_place : "");
  }
  text += context_line(request, plan);
  return text + speedup_table(plan, outlook);
}

std::string no_gain_warning(const Plan& plan, const DraftOutlook& outlook) {
  if (outlook.kind == DraftOutlook::Kind::kNone) return "";
  const double ratio = cost_ratio(plan, outlook);
  for (const double rate : kTableAcceptanceRates) {
    if (best_at(rate, ratio, outlook).speedup > 1) return "";
  }
  char text[200];
  std::snprintf(text, sizeof text,
                "no number of drafted tokens is predicted to gain, even if nine of ten stand: a "
                "draft pass costs %.2f "
                "of a main pass; take a smaller draft",
                ratio);
  return text;
}

}  // namespace tandem
