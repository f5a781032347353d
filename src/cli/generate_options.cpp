#include "cli/generate_options.h"

#include <charconv>

#include "cli/console.h"
#include "core/text.h"
#include "tandem/engine.h"
#include "tandem/error.h"

namespace tandem::cli {
namespace {

template <typename T, typename U>
void override_with(const std::optional<T>& option, U& value) {
  if (option) value = *option;
}

/// The whole text as a number. @throws UsageError that names the option and what it expects
template <typename Number>
Number parse_number(const char* option, const std::string& text, const char* expected) {
  Number value = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    throw UsageError(std::string(option) + " is '" + text + "'; expected " + expected);
  }
  return value;
}

std::optional<int> parse_draft_length(const std::string& text) {
  if (text == "auto") return std::nullopt;
  return parse_number<int>("--num-speculative-tokens", text, "'auto' or an integer from 0 to 15");
}

}  // namespace

void GenerateOptions::add_to(CLI::App& sub) {
  const char* const kModels = "Models";
  pair.add_to(sub, kModels);
  sub.add_option("--device", device, "Devices to use, such as cuda:0 or cpu")
      ->type_name("D[,D...]")
      ->group(kModels);
  sub.add_option("--threads", threads, "CPU threads; 0: every core")
      ->type_name("N")
      ->group(kModels);

  const char* const kPrompt = "Prompt";
  CLI::Option* const text =
      sub.add_option("--prompt", prompt, "The prompt")->type_name("TEXT")->group(kPrompt);
  sub.add_option("--prompt-file", prompt_file,
                 "A file that holds the prompt; '-' for standard input")
      ->type_name("FILE")
      ->group(kPrompt)
      ->excludes(text);

  const char* const kSampling = "Sampling";
  sub.add_option("--max-tokens", max_tokens, "The most tokens to generate")
      ->type_name("N")
      ->group(kSampling);
  sub.add_option("--temperature", temperature, "0 decodes greedily")
      ->type_name("T")
      ->group(kSampling);
  sub.add_option("--top-p", top_p, "Keep the likeliest tokens up to this probability")
      ->type_name("P")
      ->group(kSampling);
  sub.add_option("--top-k", top_k, "Keep this many tokens; 0: all")
      ->type_name("K")
      ->group(kSampling);
  sub.add_option("--min-p", min_p, "Keep tokens at least this likely, relative to the likeliest")
      ->type_name("P")
      ->group(kSampling);
  sub.add_option("--repetition-penalty", repetition_penalty, "Over prompt and output; 1: none")
      ->type_name("X")
      ->group(kSampling);
  sub.add_option("--presence-penalty", presence_penalty, "Over the output; 0: none")
      ->type_name("X")
      ->group(kSampling);
  sub.add_option("--frequency-penalty", frequency_penalty,
                 "Over the output, per occurrence; 0: none")
      ->type_name("X")
      ->group(kSampling);
  sub.add_option("--seed", seed, "Key of all random numbers; drawn and reported when not given")
      ->type_name("S")
      ->group(kSampling);
  sub.add_option("--stop", stop, "End before this text; may be given several times")
      ->type_name("TEXT")
      ->group(kSampling)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  sub.add_flag("--ignore-eos", ignore_eos, "Go on after an end-of-sequence token")
      ->group(kSampling);
  sub.add_option("--n", n, "Number of completions, with seeds S to S+N-1")
      ->type_name("N")
      ->group(kSampling);

  const char* const kSpeculation = "Speculation";
  sub.add_option("--method", method, "draft_model, ngram or none")
      ->type_name("M")
      ->group(kSpeculation);
  sub.add_option("--num-speculative-tokens", num_speculative_tokens,
                 "Draft tokens a round; auto, the default, chooses them round by round")
      ->type_name("N|auto")
      ->group(kSpeculation);
  sub.add_option("--cost-table", cost_table,
                 "What rounds cost, for auto, instead of measuring it when the pair is loaded")
      ->type_name("FILE")
      ->group(kSpeculation);
  sub.add_option("--save-cost-table", save_cost_table,
                 "Write what rounds were measured to cost, for --cost-table")
      ->type_name("FILE")
      ->group(kSpeculation);
  sub.add_option("--rejection-sample-method", rejection_sample_method,
                 "rejection, block or coupled")
      ->type_name("R")
      ->group(kSpeculation);
  sub.add_flag("--allow-vocabulary-mismatch", allow_vocabulary_mismatch,
               "Accept a pair whose vocabularies agree in less than 95 %")
      ->group(kSpeculation);

  synthetic.add_to(sub, kSpeculation);
  processes.add_to(sub);

  const char* const kOutput = "Output";
  sub.add_option("--logprobs", logprobs,
                 "With --json: log-probability of each token and of the N likeliest")
      ->type_name("N")
      ->group(kOutput);
  sub.add_flag("--baseline", baseline,
               "Decode plainly first, and print how many times faster the pair is")
      ->group(kOutput);
  sub.add_flag("--color", color, "On a terminal: mark text that the draft proposed")
      ->group(kOutput);
  sub.add_flag("--json", json, "Print one object for each completion, one a line")->group(kOutput);
  sub.add_option("--output", output, "Write to this file instead of standard output")
      ->type_name("FILE")
      ->group(kOutput);
}

Config GenerateOptions::make_config() const {
  if (n < 1 || n > Request::kMaxCompletions) {
    throw UsageError("n is " + std::to_string(n) + "; expected an integer from 1 to " +
                     std::to_string(Request::kMaxCompletions));
  }
  Config made = pair.read();
  if (device) {
    made.main.devices = *device;
    if (made.draft) made.draft->device = "auto";
  }
  made.cpu_threads = threads;

  override_with(method, made.speculation.method);
  if (num_speculative_tokens) {
    made.speculation.num_speculative_tokens = parse_draft_length(*num_speculative_tokens);
  }
  if (cost_table) made.speculation.cost_table = *cost_table;
  override_with(rejection_sample_method, made.speculation.rejection_sample_method);
  if (allow_vocabulary_mismatch) made.speculation.allow_vocabulary_mismatch = true;

  SamplingParams& sampling = made.sampling;
  override_with(max_tokens, sampling.max_tokens);
  override_with(temperature, sampling.temperature);
  override_with(top_p, sampling.top_p);
  override_with(top_k, sampling.top_k);
  override_with(min_p, sampling.min_p);
  override_with(repetition_penalty, sampling.repetition_penalty);
  override_with(presence_penalty, sampling.presence_penalty);
  override_with(frequency_penalty, sampling.frequency_penalty);
  if (seed) {
    sampling.seed =
        parse_number<uint64_t>("--seed", *seed, "an integer from 0 to 18446744073709551615");
  }
  if (!stop.empty()) sampling.stop = stop;
  if (ignore_eos) sampling.ignore_eos = true;
  override_with(logprobs, sampling.logprobs);
  sampling.validate();
  made.validate();
  return made;
}

std::string GenerateOptions::read_prompt() const {
  if (!prompt && !prompt_file) {
    throw UsageError(
        "no prompt is given; use --prompt TEXT, or --prompt-file FILE ('-' for standard input)");
  }
  const std::string text = prompt ? *prompt : read_input(*prompt_file);
  const std::string name = prompt                ? "--prompt"
                           : *prompt_file == "-" ? "standard input"
                                                 : *prompt_file;
  if (text.empty()) throw UsageError(name + ": the prompt is empty; give at least one character");
  if (const auto offset = find_invalid_utf8(text)) {
    throw UsageError(name + ": the prompt is not valid UTF-8 at byte " + std::to_string(*offset));
  }
  return text;
}

}  // namespace tandem::cli
