#pragma once

#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "tandem/engine.h"

namespace tandem::cli {

/// Plain and speculative decoding of the same request beside each other.
struct Comparison {
  double plain_tokens_per_second = 0;
  double ratio = 0;          ///< speculative over plain, tokens per second
  bool same_tokens = false;  ///< whether both gave the same token ids
};
Comparison compare(const std::vector<Completion>& plain,
                   const std::vector<Completion>& speculative);

/// The statistics of all completions together.
Stats total(const std::vector<Completion>& completions);

/// One line: the object that `generate --json` prints. Its "stats" end with "memory": what the
/// engine planned and took, one entry a row of `memory`.
/// @param synthetic how acceptance was made up; empty: it is the models'
std::string completion_json(const Completion& completion, const std::vector<MemoryUse>& memory,
                            bool with_logprobs, const std::optional<Comparison>& comparison,
                            const std::string& synthetic);

/// Streams text pieces; between several completions it puts a line that tells them apart.
class TextPrinter {
 public:
  /// @param color whether to mark text that the drafter proposed
  TextPrinter(std::ostream& out, bool color, int completions)
      : out_(out), color_(color), completions_(completions) {}
  void print(const TextPiece& piece);
  /// Ends the text: a line break where people read it.
  void finish(bool for_people);

 private:
  std::ostream& out_;
  bool color_;
  int completions_;
  int last_index_ = -1;
  bool at_line_start_ = true;
};

/// What people want to know at the end.
void print_summary(std::ostream& out, const std::vector<Completion>& completions,
                   const EngineInfo& info, const std::optional<Comparison>& comparison,
                   bool text_is_fixed, const std::string& synthetic);

}  // namespace tandem::cli
