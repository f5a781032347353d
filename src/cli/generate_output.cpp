#include "cli/generate_output.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace tandem::cli {
namespace {

using nlohmann::ordered_json;

// SGR sequences of ECMA-48.
constexpr const char* kGreen = "\033[32m";
constexpr const char* kReset = "\033[0m";

constexpr double kMilliseconds = 1e3;

ordered_json memory_json(const std::vector<MemoryUse>& memory) {
  auto list = ordered_json::array();
  for (const MemoryUse& use : memory) {
    list.push_back({{"device", use.device},
                    {"model", use.model},
                    {"purpose", name_of(use.purpose)},
                    {"planned_bytes", use.planned_bytes},
                    {"actual_bytes", use.actual_bytes}});
  }
  return list;
}

ordered_json stats_json(const Stats& stats, const std::vector<MemoryUse>& memory) {
  return {{"num_rounds", stats.num_rounds},
          {"num_drafts", stats.num_drafts},
          {"num_draft_tokens", stats.num_draft_tokens},
          {"num_accepted_tokens", stats.num_accepted_tokens},
          {"acceptance_rate", stats.acceptance_rate()},
          {"mean_acceptance_length", stats.mean_acceptance_length()},
          {"acceptance_rate_per_position", stats.acceptance_rate_per_position()},
          {"prefill_seconds", stats.prefill_seconds},
          {"decode_seconds", stats.decode_seconds},
          {"draft_seconds", stats.draft_seconds},
          {"verify_seconds", stats.verify_seconds},
          {"tokens_per_second", stats.tokens_per_second()},
          {"time_to_first_token_seconds", stats.time_to_first_token_seconds},
          {"mean_draft_length", stats.mean_draft_length()},
          {"draft_lengths", stats.draft_lengths},
          {"memory", memory_json(memory)}};
}

ordered_json logprobs_json(const std::vector<TokenLogprobs>& logprobs) {
  auto list = ordered_json::array();
  for (const TokenLogprobs& token : logprobs) {
    auto top = ordered_json::array();
    for (const auto& [id, logprob] : token.top)
      top.push_back({{"token", id}, {"logprob", logprob}});
    list.push_back({{"token", token.token}, {"logprob", token.logprob}, {"top", std::move(top)}});
  }
  return list;
}

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

/// Tokens per second over several completions: the first token of each is the prefill's.
double tokens_per_second(const std::vector<Completion>& completions) {
  int64_t tokens = 0;
  double seconds = 0;
  for (const Completion& completion : completions) {
    tokens += std::max<int64_t>(completion.stats.num_tokens - 1, 0);
    seconds += completion.stats.decode_seconds;
  }
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

std::string finish_reasons(const std::vector<Completion>& completions) {
  if (completions.size() == 1) return std::string(name_of(completions.front().finish_reason));
  std::string text;
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled}) {
    const auto count =
        std::count_if(completions.begin(), completions.end(),
                      [&](const Completion& one) { return one.finish_reason == reason; });
    if (count == 0) continue;
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + std::string(name_of(reason));
  }
  return text;
}

}  // namespace

Stats total(const std::vector<Completion>& completions) {
  Stats sum;
  for (const Completion& completion : completions) sum += completion.stats;
  return sum;
}

Comparison compare(const std::vector<Completion>& plain,
                   const std::vector<Completion>& speculative) {
  Comparison result;
  result.plain_tokens_per_second = tokens_per_second(plain);
  if (result.plain_tokens_per_second > 0) {
    result.ratio = tokens_per_second(speculative) / result.plain_tokens_per_second;
  }
  result.same_tokens = std::equal(
      plain.begin(), plain.end(), speculative.begin(), speculative.end(),
      [](const Completion& a, const Completion& b) { return a.token_ids == b.token_ids; });
  return result;
}

std::string completion_json(const Completion& completion, const std::vector<MemoryUse>& memory,
                            bool with_logprobs, const std::optional<Comparison>& comparison,
                            const std::string& synthetic) {
  ordered_json object = {{"text", completion.text},
                         {"token_ids", completion.token_ids},
                         {"prompt_token_ids", completion.prompt_token_ids},
                         {"finish_reason", name_of(completion.finish_reason)},
                         {"seed", completion.seed}};
  if (!synthetic.empty()) object["synthetic"] = synthetic;
  if (with_logprobs) object["logprobs"] = logprobs_json(completion.logprobs);
  object["stats"] = stats_json(completion.stats, memory);
  if (comparison) {
    object["baseline"] = {{"tokens_per_second", comparison->plain_tokens_per_second},
                          {"ratio", comparison->ratio},
                          {"same_tokens", comparison->same_tokens}};
  }
  return object.dump();
}

void TextPrinter::print(const TextPiece& piece) {
  if (completions_ > 1 && piece.index != last_index_) {
    if (!at_line_start_) out_ << "\n";
    out_ << "--- " << piece.index + 1 << " of " << completions_ << " ---\n";
  }
  last_index_ = piece.index;
  const bool marked = color_ && piece.from_draft;
  out_ << (marked ? kGreen : "") << piece.text << (marked ? kReset : "") << std::flush;
  at_line_start_ = piece.text.ends_with('\n');
}

void TextPrinter::finish(bool for_people) {
  if (!at_line_start_ && (for_people || completions_ > 1)) out_ << "\n";
  out_.flush();
}

void print_summary(std::ostream& out, const std::vector<Completion>& completions,
                   const EngineInfo& info, const std::optional<Comparison>& comparison,
                   bool text_is_fixed, const std::string& synthetic) {
  const Stats stats = total(completions);
  out << "\n";
  if (!synthetic.empty()) out << "SYNTHETIC " << synthetic << ": the text means nothing\n";
  out << format("tokens                  %lld after a prompt of %lld, ended by: ",
                static_cast<long long>(stats.num_tokens),
                static_cast<long long>(completions.front().stats.num_prompt_tokens))
      << finish_reasons(completions) << "\n"
      << format("tokens per second       %.0f, the first after %.1f ms\n",
                tokens_per_second(completions),
                kMilliseconds * stats.time_to_first_token_seconds /
                    static_cast<double>(completions.size()));
  if (info.method != "none") {
    out << format("acceptance rate         %.3f, by position:", stats.acceptance_rate());
    for (const double rate : stats.acceptance_rate_per_position()) out << format(" %.2f", rate);
    out << "\n" << format("mean acceptance length  %.2f tokens\n", stats.mean_acceptance_length());
  }
  if (info.method != "none" && stats.draft_lengths.size() > 1) {
    out << format("draft length            %.2f tokens a round, rounds by length:",
                  stats.mean_draft_length());
    for (const int64_t rounds : stats.draft_lengths) {
      out << format(" %lld", static_cast<long long>(rounds));
    }
    out << "\n";
  }
  out << format("rounds                  %lld", static_cast<long long>(stats.num_rounds));
  if (info.method != "none") {
    out << format(": drafting %.1f ms, verifying %.1f ms", kMilliseconds * stats.draft_seconds,
                  kMilliseconds * stats.verify_seconds);
  }
  out << "\n"
      << "seed                    " << completions.front().seed;
  if (completions.size() > 1) out << " to " << completions.back().seed;
  out << "\n";
  if (comparison) {
    out << format("plain decoding          %.0f tokens per second: the pair is %.2f times as fast",
                  comparison->plain_tokens_per_second, comparison->ratio);
    if (text_is_fixed) out << (comparison->same_tokens ? ", same tokens" : ", DIFFERENT TOKENS");
    out << "\n";
  }
  out.flush();
}

}  // namespace tandem::cli
