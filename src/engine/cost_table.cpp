#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "backend/round_view.h"
#include "core/mapped_file.h"
#include "core/text.h"
#include "engine/strict_json.h"
#include "tandem/error.h"
#include "tandem/speedup.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxTableBytes = 1 << 16;
constexpr const char* kVerify = "verify_seconds";
constexpr const char* kDraftFirst = "draft_first_seconds";
constexpr const char* kDraftStep = "draft_step_seconds";
constexpr const char* kCatchUp = "draft_catch_up_seconds";

class Reader {
 public:
  Reader(const json& document, std::string_view name) : document_(document), name_(name) {}

  CostTable read() const {
    if (!document_.is_object()) {
      throw ConfigError(name_ + ": holds " + std::string(describe_type(document_)) +
                        "; expected an object");
    }
    refuse_other_keys();
    CostTable costs;
    costs.verify_seconds = verify_seconds();
    costs.draft_first_seconds = seconds(kDraftFirst);
    costs.draft_step_seconds = seconds(kDraftStep);
    costs.draft_catch_up_seconds = seconds(kCatchUp);
    return costs;
  }

 private:
  void refuse_other_keys() const {
    const std::vector<std::string> known = {kVerify, kDraftFirst, kDraftStep, kCatchUp};
    for (const auto& item : document_.items()) {
      if (std::find(known.begin(), known.end(), item.key()) != known.end()) continue;
      throw ConfigError(name_ + ": unknown key " + brief(item.key()) +
                        "; the nearest known key is \"" + nearest(item.key(), known) + "\"");
    }
  }
  std::vector<double> verify_seconds() const {
    const auto item = document_.find(kVerify);
    const size_t most = kMaxSpeculativeTokens + 1;
    if (item == document_.end() || !item->is_array() || item->empty() || item->size() > most) {
      fail(kVerify, "must be a list of 1 to " + std::to_string(most) +
                        " numbers: seconds of a pass that checks 0, 1, 2, … drafts");
    }
    std::vector<double> all;
    for (const json& one : *item) {
      all.push_back(number(kVerify, one));
      if (all.back() <= 0) fail(kVerify, "holds " + brief(one) + "; expected numbers above 0");
    }
    return all;
  }
  double seconds(const char* key) const {
    const auto item = document_.find(key);
    return item == document_.end() ? 0 : number(key, *item);
  }
  double number(const char* key, const json& value) const {
    constexpr double kMostSeconds = 1e6;
    const bool fits =
        value.is_number() && value.get<double>() >= 0 && value.get<double>() <= kMostSeconds;
    if (!fits) fail(key, "holds " + brief(value) + "; expected seconds, 0 to 1000000");
    return value.get<double>();
  }
  [[noreturn]] void fail(const char* key, const std::string& what) const {
    throw ConfigError(name_ + ": \"" + key + "\" " + what);
  }

  const json& document_;
  std::string name_;
};

}  // namespace

CostTable CostTable::from_json(std::string_view text, std::string_view name) {
  const json document = parse_strict_json(text, name);
  return Reader(document, name).read();
}

CostTable CostTable::from_file(const std::filesystem::path& path) {
  std::string text;
  try {
    text = read_text_file(path, kMaxTableBytes);
  } catch (const ModelError& error) {
    throw ConfigError(error.what());
  }
  return from_json(text, path.string());
}

std::string CostTable::to_json() const {
  const nlohmann::ordered_json document = {{kVerify, verify_seconds},
                                           {kDraftFirst, draft_first_seconds},
                                           {kDraftStep, draft_step_seconds},
                                           {kCatchUp, draft_catch_up_seconds}};
  constexpr int kIndent = 2;
  return document.dump(kIndent) + "\n";
}

}  // namespace tandem
