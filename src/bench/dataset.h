#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::bench {

/// One prompt of a data set: one turn, or the turns that a user takes in a conversation.
struct Prompt {
  std::string id;
  std::string category;
  std::vector<std::string> turns;  ///< at least one, none empty, UTF-8
};

struct Dataset {
  std::string name;    ///< what messages and reports call it
  std::string format;  ///< "spec_bench", "humaneval", "gsm8k", "sharegpt", "prompt"
  std::vector<Prompt> prompts;
  std::vector<std::string> skipped;  ///< malformed lines, each as "name:line: what is wrong"
  uint64_t hash = 0;                 ///< of the text, to tell data sets apart
};

/// Reads a data set of JSON lines. The first object tells the format:
///
/// | format     | keys                                                             | category     |
/// |------------|------------------------------------------------------------------|--------------|
/// | spec_bench | `question_id`, `category`, `turns` (list of strings)             | `category`   |
/// | sharegpt   | `conversations` (list of {`from`, `value`}): the human's turns   | "sharegpt"   |
/// | humaneval  | `task_id`, `prompt`                                              | "humaneval"  |
/// | gsm8k      | `question`                                                       | "gsm8k"      |
/// | prompt     | `prompt`                                                         | "prompt"     |
///
/// A string `category` wins over the last column, an `id` over the line number. Empty lines are
/// passed over.
/// @param skip_bad malformed lines are listed in `skipped` instead of being an error
/// @throws UsageError that names the file and the line: a malformed line, an unknown format, a data
/// set without prompts, a file that cannot be read
Dataset read_dataset(const std::filesystem::path& path, bool skip_bad);

/// The same for text. @param name what messages call it
Dataset parse_dataset(std::string_view text, const std::string& name, bool skip_bad);

/// The prompts that come with tandem (bench/prompts), written for the demonstration pair.
Dataset bundled_dataset();

/// At most `limit` prompts (0: all), one of each category in turn, each category in its order, so
/// that every category is represented. The order of the data set is kept.
std::vector<Prompt> limit_prompts(const std::vector<Prompt>& prompts, int limit);

}  // namespace tandem::bench
