#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/commands.h"
#include "cli/console.h"
#include "tandem/error.h"
#include "tokenizer/tokenizer.h"

namespace tandem::cli {
namespace {

struct TokenizeOptions {
  std::string model;
  bool decode = false;
  bool special = false;
};

int tokenize(const TokenizeOptions& options) {
  const Tokenizer tokenizer = Tokenizer::from_folder(options.model);
  const std::string input = read_stdin();
  if (options.decode) {
    const std::vector<int32_t> ids = parse_ids(input, "standard input");
    for (const int32_t id : ids) {
      if (id >= 0 && id < tokenizer.vocab_size()) continue;
      throw UsageError("standard input: token id " + std::to_string(id) +
                       " is outside the vocabulary, 0 to " +
                       std::to_string(tokenizer.vocab_size() - 1));
    }
    std::cout << tokenizer.decode(ids, !options.special);
  } else {
    std::cout << nlohmann::json(tokenizer.encode(input, options.special)).dump() << "\n";
  }
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Command& command) {
  const auto options = std::make_shared<TokenizeOptions>();
  CLI::App* const sub = app.add_subcommand(
      "tokenize", "Turn the text on standard input into token ids, or back with --decode");
  sub->add_option("--model", options->model, "Model folder that holds a tokenizer.json")
      ->required()
      ->type_name("DIR");
  sub->add_flag(
      "--decode", options->decode,
      "Read token ids (a JSON list, or separated by commas or spaces) and print their text");
  sub->add_flag(
      "--special", options->special,
      "Recognise special tokens in the text and add those of the tokenizer's template, as "
      "'generate' does; with --decode, write special tokens out");
  sub->footer(
      "Examples:\n"
      "  printf 'def add(a, b):' | tandem tokenize --model models/demo/main\n"
      "  printf 'def add(a, b):' | tandem tokenize --model models/demo/main --special\n"
      "  echo '[67, 305]' | tandem tokenize --model models/demo/main --decode");
  sub->callback([options, &command] { command = [options] { return tokenize(*options); }; });
}

}  // namespace tandem::cli
