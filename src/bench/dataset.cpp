#include "bench/dataset.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "bench/bundled_prompts.h"
#include "bench/text_hash.h"
#include "tandem/error.h"

namespace tandem::bench {
namespace {

using nlohmann::json;

constexpr std::string_view kKnownFormats =
    "known are Spec-Bench ('question_id', 'category', 'turns'), HumanEval ('task_id', 'prompt'), "
    "GSM8K ('question'), ShareGPT ('conversations') and plain lines of {\"prompt\": \"…\"}";

/// What is wrong with one line.
struct BadLine {
  std::string what;
};

const json& member(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) throw BadLine{std::string("'") + key + "' is missing"};
  return *found;
}

std::string text_of(const json& value, const std::string& what) {
  if (!value.is_string()) throw BadLine{what + " is no string"};
  auto text = value.get<std::string>();
  if (text.empty()) throw BadLine{what + " is empty"};
  return text;
}

std::vector<std::string> single_turn(const json& object, const char* key) {
  return {text_of(member(object, key), std::string("'") + key + "'")};
}

std::vector<std::string> listed_turns(const json& object) {
  const json& list = member(object, "turns");
  if (!list.is_array()) throw BadLine{"'turns' is no list"};
  if (list.empty()) throw BadLine{"'turns' is empty"};
  std::vector<std::string> turns;
  for (const json& turn : list) {
    turns.push_back(text_of(turn, "turn " + std::to_string(turns.size() + 1)));
  }
  return turns;
}

/// What the person says in a ShareGPT conversation; the answers in the file are not used.
std::vector<std::string> human_turns(const json& object) {
  const json& list = member(object, "conversations");
  if (!list.is_array()) throw BadLine{"'conversations' is no list"};
  std::vector<std::string> turns;
  for (const json& message : list) {
    if (!message.is_object()) throw BadLine{"'conversations' holds something that is no object"};
    const bool by_role = message.contains("role");
    const std::string from = text_of(member(message, by_role ? "role" : "from"), "a sender");
    if (from != "human" && from != "user") continue;
    turns.push_back(text_of(member(message, by_role ? "content" : "value"), "a message"));
  }
  if (turns.empty()) throw BadLine{"'conversations' holds no message of a person"};
  return turns;
}

std::string id_text(const json& value, const std::string& otherwise) {
  if (value.is_string()) return value.get<std::string>();
  return value.is_number_integer() ? value.dump() : otherwise;
}

std::string format_of(const json& object) {
  if (object.contains("turns")) return "spec_bench";
  if (object.contains("conversations")) return "sharegpt";
  if (object.contains("prompt")) return object.contains("task_id") ? "humaneval" : "prompt";
  if (object.contains("question")) return "gsm8k";
  return "";
}

std::string keys_of(const json& object) {
  constexpr size_t kShown = 6;
  std::string keys;
  size_t count = 0;
  for (const auto& entry : object.items()) {
    if (count == kShown) return keys + ", …";
    keys += (count++ == 0 ? "'" : ", '") + entry.key() + "'";
  }
  return keys;
}

class Reader {
 public:
  Reader(const std::string& name, bool skip_bad) : skip_bad_(skip_bad) { dataset_.name = name; }

  void take(std::string_view line, int number) {
    const std::string where = dataset_.name + ":" + std::to_string(number) + ": ";
    try {
      const json object = parse(line);
      if (dataset_.format.empty()) recognise(object, where);
      dataset_.prompts.push_back(prompt_of(object, number));
    } catch (const BadLine& bad) {
      if (!skip_bad_) {
        throw UsageError(where + bad.what +
                         "; repair the line, or leave such lines out with "
                         "--skip-bad");
      }
      dataset_.skipped.push_back(where + bad.what);
    }
  }

  Dataset finish(uint64_t hash) {
    if (dataset_.prompts.empty()) {
      throw UsageError(dataset_.name + ": the data set holds no prompt" +
                       (dataset_.skipped.empty() ? "; give a file of JSON lines"
                                                 : ": every line is malformed, the first is " +
                                                       dataset_.skipped.front()));
    }
    dataset_.hash = hash;
    return std::move(dataset_);
  }

 private:
  json parse(std::string_view line) const {
    const json value = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (value.is_discarded()) throw BadLine{"no valid JSON"};
    if (!value.is_object()) {
      throw BadLine{value.is_array()
                        ? "a list instead of an object (one object a line: jq -c '.[]' makes them "
                          "of a list)"
                        : "no JSON object"};
    }
    return value;
  }

  void recognise(const json& object, const std::string& where) {
    dataset_.format = format_of(object);
    if (!dataset_.format.empty()) return;
    throw UsageError(where + "an object with the keys " +
                     (object.empty() ? "(none)" : keys_of(object)) + " is of no known format; " +
                     std::string(kKnownFormats));
  }

  Prompt prompt_of(const json& object, int number) const {
    const std::string& format = dataset_.format;
    Prompt prompt;
    prompt.category = format;
    std::string id_key = "id";
    if (format == "spec_bench") {
      prompt.turns = listed_turns(object);
      prompt.category = text_of(member(object, "category"), "'category'");
      id_key = "question_id";
      member(object, "question_id");
    } else if (format == "sharegpt") {
      prompt.turns = human_turns(object);
    } else if (format == "gsm8k") {
      prompt.turns = single_turn(object, "question");
    } else {
      prompt.turns = single_turn(object, "prompt");
      if (format == "humaneval") {
        id_key = "task_id";
        member(object, "task_id");
      }
    }
    if (object.contains("category")) {
      prompt.category = text_of(object["category"], "'category'");
    }
    const std::string line = "line " + std::to_string(number);
    prompt.id = object.contains(id_key) ? id_text(object[id_key], line) : line;
    return prompt;
  }

  bool skip_bad_;
  Dataset dataset_;
};

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

Dataset parse_dataset(std::string_view text, const std::string& name, bool skip_bad) {
  Reader reader(name, skip_bad);
  int number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (!is_blank(line)) reader.take(line, number);
  }
  return reader.finish(text_hash(text));
}

Dataset read_dataset(const std::filesystem::path& path, bool skip_bad) {
  std::error_code ignored;
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path, ignored)) {
    throw UsageError(path.string() + ": cannot be read; give a data set as a file of JSON lines");
  }
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return parse_dataset(text, path.string(), skip_bad);
}

Dataset bundled_dataset() {
  return parse_dataset(kBundledPrompts, "bundled prompts", /*skip_bad=*/false);
}

std::vector<Prompt> limit_prompts(const std::vector<Prompt>& prompts, int limit) {
  if (limit <= 0 || std::cmp_less_equal(prompts.size(), limit)) return prompts;
  std::vector<std::vector<size_t>> by_category;  // in the order of first appearance
  std::map<std::string, size_t> slots;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto [slot, is_new] = slots.try_emplace(prompts[i].category, by_category.size());
    if (is_new) by_category.emplace_back();
    by_category[slot->second].push_back(i);
  }
  std::vector<size_t> chosen;
  for (size_t round = 0; std::cmp_less(chosen.size(), limit); ++round) {
    for (const auto& members : by_category) {
      if (round < members.size() && std::cmp_less(chosen.size(), limit)) {
        chosen.push_back(members[round]);
      }
    }
  }
  std::sort(chosen.begin(), chosen.end());
  std::vector<Prompt> limited;
  for (const size_t i : chosen) limited.push_back(prompts[i]);
  return limited;
}

}  // namespace tandem::bench
